#include "common/tensor_spec.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status Bad(absl::string_view message, const DTensorSpec& spec) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(message, "; got: ", ToString(spec)),
      {.reason = "INVALID_SPEC", .metadata = {{"spec", ToString(spec)}}});
}

std::vector<int> CuttingMeshDims(const DTensorSpec& spec) {
  std::vector<int> dims;
  for (size_t i = 0; i < spec.placements.size(); ++i) {
    if (ShardDim(spec.placements[i]) != -1) dims.push_back(static_cast<int>(i));
  }
  return dims;
}

// visit(mesh dim, tensor dim) for each cut, the outer ones first.
template <typename Visit>
void ForEachCut(const DTensorSpec& spec, Visit visit) {
  const int count = static_cast<int>(
      spec.cut_order.empty() ? spec.placements.size() : spec.cut_order.size());
  for (int i = 0; i < count; ++i) {
    const int mesh_dim = spec.cut_order.empty() ? i : spec.cut_order[i];
    const int dim = ShardDim(spec.placements[mesh_dim]);
    if (dim != -1) visit(mesh_dim, dim);
  }
}

}  // namespace

std::string ToString(const DTensorSpec& spec) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < spec.placements.size(); ++i) {
    parts.push_back(ToString(spec.placements[i]));
    const auto at = std::find(spec.cut_order.begin(), spec.cut_order.end(), i);
    if (at != spec.cut_order.end()) {
      absl::StrAppend(&parts.back(), "#", at - spec.cut_order.begin() + 1);
    }
  }
  return absl::StrCat("[", absl::StrJoin(parts, ", "), "]");
}

std::vector<int> CutsOf(const DTensorSpec& spec, int tensor_dim) {
  std::vector<int> cuts;
  ForEachCut(spec, [&](int mesh_dim, int dim) {
    if (dim == tensor_dim) cuts.push_back(mesh_dim);
  });
  return cuts;
}

bool IsFullyReplicated(const DTensorSpec& spec) {
  return std::all_of(spec.placements.begin(), spec.placements.end(),
                     IsReplicate);
}

bool HasPartial(const DTensorSpec& spec) {
  return std::any_of(spec.placements.begin(), spec.placements.end(), IsPartial);
}

bool HasShard(const DTensorSpec& spec) {
  return std::any_of(spec.placements.begin(), spec.placements.end(),
                     [](const Placement& p) { return ShardDim(p) != -1; });
}

absl::Status Validate(const DTensorSpec& spec, const DeviceMesh& mesh,
                      int tensor_rank) {
  if (static_cast<int>(spec.placements.size()) != mesh.ndim()) {
    return Bad(absl::StrCat("a spec on mesh ", mesh.ToString(), " needs ",
                            mesh.ndim(), " placements"),
               spec);
  }
  for (const Placement& placement : spec.placements) {
    const Shard* shard = std::get_if<Shard>(&placement);
    if (shard == nullptr) continue;
    if (shard->dim < 0 || shard->dim >= tensor_rank) {
      return Bad(absl::StrCat("a Shard of a tensor with ", tensor_rank,
                              " dims must name one of them"),
                 spec);
    }
  }
  if (spec.cut_order.empty()) return absl::OkStatus();
  std::vector<int> sorted = spec.cut_order;
  std::sort(sorted.begin(), sorted.end());
  if (sorted != CuttingMeshDims(spec)) {
    return Bad(absl::StrCat("a cut order must name each mesh dim that cuts "
                            "once and no other, not [",
                            absl::StrJoin(spec.cut_order, ", "), "]"),
               spec);
  }
  return absl::OkStatus();
}

Extent Chunk(int64_t n, int parts, int index) {
  const int64_t chunk = (n + parts - 1) / parts;
  const int64_t begin = std::min<int64_t>(n, chunk * index);
  const int64_t end = std::min<int64_t>(n, begin + chunk);
  return {begin, end - begin};
}

Extent LocalExtent(int64_t n, absl::Span<const int> cuts,
                   const DeviceMesh& mesh, absl::Span<const int> coordinate) {
  Extent extent{0, n};
  for (const int mesh_dim : cuts) {
    const Extent chunk =
        Chunk(extent.size, mesh.dim_size(mesh_dim), coordinate[mesh_dim]);
    extent = {extent.offset + chunk.offset, chunk.size};
  }
  return extent;
}

std::vector<Extent> LocalExtents(absl::Span<const int64_t> shape,
                                 const DTensorSpec& spec,
                                 const DeviceMesh& mesh,
                                 absl::Span<const int> coordinate) {
  std::vector<Extent> extents;
  extents.reserve(shape.size());
  for (const int64_t size : shape) extents.push_back({0, size});
  ForEachCut(spec, [&](int mesh_dim, int dim) {
    const Extent chunk =
        Chunk(extents[dim].size, mesh.dim_size(mesh_dim), coordinate[mesh_dim]);
    extents[dim] = {extents[dim].offset + chunk.offset, chunk.size};
  });
  return extents;
}

Shape LocalShape(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                 const DeviceMesh& mesh, absl::Span<const int> coordinate) {
  Shape local(shape.begin(), shape.end());
  ForEachCut(spec, [&](int mesh_dim, int dim) {
    local[dim] =
        Chunk(local[dim], mesh.dim_size(mesh_dim), coordinate[mesh_dim]).size;
  });
  return local;
}

int64_t LocalElements(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                      const DeviceMesh& mesh,
                      absl::Span<const int> coordinate) {
  int64_t elements = 1;
  for (size_t d = 0; d < shape.size(); ++d) {
    int64_t size = shape[d];
    ForEachCut(spec, [&](int mesh_dim, int dim) {
      if (dim != static_cast<int>(d)) return;
      size = Chunk(size, mesh.dim_size(mesh_dim), coordinate[mesh_dim]).size;
    });
    elements *= size;
  }
  return elements;
}

int64_t LocalBytes(const TensorType& type, const DTensorSpec& spec,
                   const DeviceMesh& mesh, absl::Span<const int> coordinate) {
  return LocalElements(type.shape, spec, mesh, coordinate) *
         ByteSize(type.dtype);
}

int64_t LargestBytes(const TensorType& type, const DTensorSpec& spec,
                     const DeviceMesh& mesh) {
  return LocalBytes(type, spec, mesh, mesh.Coordinate(0));
}

}  // namespace shardplane
