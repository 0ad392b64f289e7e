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

absl::Status CheckCutOrder(const DTensorSpec& spec) {
  if (spec.cut_order.empty()) return absl::OkStatus();
  std::vector<int> sorted = spec.cut_order;
  std::sort(sorted.begin(), sorted.end());
  if (sorted == CuttingMeshDims(spec)) return absl::OkStatus();
  return Bad(absl::StrCat("a cut order must name each mesh dim that cuts "
                          "once and no other, not [",
                          absl::StrJoin(spec.cut_order, ", "), "]"),
             spec);
}

absl::Status CheckPacked(const DTensorSpec& spec, const DeviceMesh& mesh) {
  for (int m = 0; m < mesh.ndim(); ++m) {
    const Blocks blocks = BlocksOf(spec.placements[m]);
    if (blocks.empty()) continue;
    if (CutsOf(spec, ShardDim(spec.placements[m]))[0] != m) {
      return Bad("a packed Shard must be the outermost cut of its dim", spec);
    }
    SP_RETURN_IF_ERROR(CheckBlocks(blocks, -1, mesh.dim_size(m)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBlocks(const Blocks& blocks, int64_t extent, int ranks) {
  if (blocks.empty()) return absl::OkStatus();
  bool fits = extent < 0 || blocks.size() == extent;
  for (const Block& block : blocks.list()) {
    fits = fits && block.size >= 0 && block.unit >= 1 &&
           block.size % block.unit == 0 && block.replicas >= 1 &&
           (block.replicas == 1 ||
            block.size / block.unit * block.replicas == ranks);
  }
  if (fits) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("blocks must be whole units",
                   extent < 0 ? "" : absl::StrCat(", ", extent, " elements"),
                   ", and with replicas one unit for each group of ", ranks,
                   " ranks; got: ", ToString(blocks)),
      {.reason = "INVALID_BLOCKS", .metadata = {}});
}

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

std::vector<int> TravelOrder(const DTensorSpec& spec, int first) {
  std::vector<int> waiting;
  for (int m = 0; m < static_cast<int>(spec.placements.size()); ++m) {
    waiting.insert(m == first ? waiting.begin() : waiting.end(), m);
  }
  const auto lies_within_another = [&](int mesh_dim) {
    const int dim = ShardDim(spec.placements[mesh_dim]);
    if (dim < 0) return false;
    for (const int cut : CutsOf(spec, dim)) {
      if (cut == mesh_dim) return false;
      if (std::find(waiting.begin(), waiting.end(), cut) != waiting.end()) {
        return true;
      }
    }
    return false;
  };
  std::vector<int> order;
  while (!waiting.empty()) {
    const auto next =
        std::find_if_not(waiting.begin(), waiting.end(), lies_within_another);
    order.push_back(*next);
    waiting.erase(next);
  }
  return order;
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
  SP_RETURN_IF_ERROR(CheckCutOrder(spec));
  return CheckPacked(spec, mesh);
}

Extent Chunk(int64_t n, int parts, int index) {
  const int64_t chunk = (n + parts - 1) / parts;
  const int64_t begin = std::min<int64_t>(n, chunk * index);
  const int64_t end = std::min<int64_t>(n, begin + chunk);
  return {begin, end - begin};
}

int64_t SizeOf(const Stretches& stretches) {
  int64_t size = 0;
  for (const Extent& stretch : stretches) size += stretch.size;
  return size;
}

namespace {

void Append(const Extent& stretch, Stretches* out) {
  if (stretch.size == 0) return;
  if (!out->empty() &&
      out->back().offset + out->back().size == stretch.offset) {
    out->back().size += stretch.size;
  } else {
    out->push_back(stretch);
  }
}

Extent ChunkOf(const Block& block, int parts, int index) {
  const Extent units = Chunk(block.size / block.unit, parts / block.replicas,
                             index / block.replicas);
  return {units.offset * block.unit, units.size * block.unit};
}

// How much of `n` elements; the blocks of the first cut are all of them.
int64_t SizeOfPart(int64_t n, const Blocks& blocks, int parts, int index) {
  if (blocks.empty()) return Chunk(n, parts, index).size;
  int64_t size = 0;
  for (const Block& block : blocks.list()) {
    size += ChunkOf(block, parts, index).size;
  }
  return size;
}

// The elements from..from+size of what `stretches` has, counted on.
Stretches Within(const Stretches& stretches, const Extent& part) {
  Stretches within;
  int64_t begin = 0;
  for (const Extent& stretch : stretches) {
    const int64_t from = std::max(part.offset, begin);
    const int64_t to = std::min(part.offset + part.size, begin + stretch.size);
    if (from < to) {
      Append({stretch.offset + from - begin, to - from}, &within);
    }
    begin += stretch.size;
  }
  return within;
}

}  // namespace

Stretches PartOf(int64_t n, const Blocks& blocks, int parts, int index) {
  Stretches out;
  if (blocks.empty()) {
    Append(Chunk(n, parts, index), &out);
    return out;
  }
  int64_t begin = 0;
  for (const Block& block : blocks.list()) {
    const Extent chunk = ChunkOf(block, parts, index);
    Append({begin + chunk.offset, chunk.size}, &out);
    begin += block.size;
  }
  return out;
}

DimCuts CutsOfDim(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                  int tensor_dim) {
  DimCuts cuts{shape[tensor_dim], CutsOf(spec, tensor_dim)};
  if (!cuts.cuts.empty()) {
    cuts.blocks = BlocksOf(spec.placements[cuts.cuts[0]]);
  }
  return cuts;
}

std::string ToString(const DimCuts& cuts, const DeviceMesh& mesh) {
  std::string text = cuts.blocks.empty()
                         ? absl::StrCat(cuts.extent)
                         : absl::StrCat("(", ToString(cuts.blocks), ")");
  for (const int m : cuts.cuts) {
    absl::StrAppend(&text, "/", mesh.dims()[m].name);
  }
  return text;
}

Stretches LocalStretches(const DimCuts& cuts, const DeviceMesh& mesh,
                         absl::Span<const int> coordinate) {
  Stretches local;
  Append({0, cuts.extent}, &local);
  for (size_t i = 0; i < cuts.cuts.size(); ++i) {
    const int m = cuts.cuts[i];
    if (i == 0) {
      local = PartOf(cuts.extent, cuts.blocks, mesh.dim_size(m), coordinate[m]);
      continue;
    }
    local =
        Within(local, Chunk(SizeOf(local), mesh.dim_size(m), coordinate[m]));
  }
  return local;
}

Stretches FirstOf(const DimCuts& cuts, const DeviceMesh& mesh,
                  absl::Span<const int> coordinate) {
  Extent own{0, cuts.extent};  // of what the first cut leaves, counted on
  Stretches first{own};
  for (size_t i = 0; i < cuts.cuts.size(); ++i) {
    const int m = cuts.cuts[i];
    const int parts = mesh.dim_size(m);
    if (i > 0) {
      const Extent chunk = Chunk(own.size, parts, coordinate[m]);
      own = {own.offset + chunk.offset, chunk.size};
      continue;
    }
    own.size = SizeOfPart(cuts.extent, cuts.blocks, parts, coordinate[m]);
    first = {own};
    if (!cuts.blocks.has_replicas()) continue;
    first.clear();
    int64_t begin = 0;
    for (const Block& block : cuts.blocks.list()) {
      const int64_t size = ChunkOf(block, parts, coordinate[m]).size;
      if (coordinate[m] % block.replicas == 0) Append({begin, size}, &first);
      begin += size;
    }
  }
  Stretches within;
  for (const Extent& stretch : first) {
    const int64_t from = std::max(stretch.offset, own.offset);
    const int64_t to =
        std::min(stretch.offset + stretch.size, own.offset + own.size);
    if (from < to) Append({from - own.offset, to - from}, &within);
  }
  return within;
}

int64_t LocalSizeOf(const DimCuts& cuts, const DeviceMesh& mesh,
                    absl::Span<const int> coordinate) {
  int64_t size = cuts.extent;
  for (size_t i = 0; i < cuts.cuts.size(); ++i) {
    const int m = cuts.cuts[i];
    size = SizeOfPart(size, i == 0 ? cuts.blocks : Blocks{}, mesh.dim_size(m),
                      coordinate[m]);
  }
  return size;
}

std::vector<Stretches> LocalStretches(absl::Span<const int64_t> shape,
                                      const DTensorSpec& spec,
                                      const DeviceMesh& mesh,
                                      absl::Span<const int> coordinate) {
  std::vector<Stretches> stretches;
  stretches.reserve(shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    stretches.push_back(LocalStretches(
        CutsOfDim(shape, spec, static_cast<int>(d)), mesh, coordinate));
  }
  return stretches;
}

Shape LocalShape(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                 const DeviceMesh& mesh, absl::Span<const int> coordinate) {
  Shape local(shape.begin(), shape.end());
  ForEachCut(spec, [&](int mesh_dim, int dim) {
    local[dim] = SizeOfPart(local[dim], BlocksOf(spec.placements[mesh_dim]),
                            mesh.dim_size(mesh_dim), coordinate[mesh_dim]);
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
      size = SizeOfPart(size, BlocksOf(spec.placements[mesh_dim]),
                        mesh.dim_size(mesh_dim), coordinate[mesh_dim]);
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
