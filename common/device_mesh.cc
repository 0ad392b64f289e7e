#include "common/device_mesh.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"

namespace shardplane {
namespace {

constexpr int64_t kMaxRanks = int64_t{1} << 20;

absl::Status Bad(absl::string_view message, absl::string_view got) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(message, "; got: ", got),
                   {.reason = "INVALID_MESH", .metadata = {{"field", "mesh"}}});
}

bool IsWord(absl::string_view part) {
  for (const char c : part) {
    if (!absl::ascii_isalnum(c) && c != '_') return false;
  }
  return !part.empty();
}

// "tp", "fsdp_inner", and "tp.0" for what Split makes.
bool IsMeshDimName(absl::string_view name) {
  if (name.empty() || absl::ascii_isdigit(name[0])) return false;
  for (const absl::string_view part : absl::StrSplit(name, '.')) {
    if (!IsWord(part)) return false;
  }
  return true;
}

std::string DimsToString(const std::vector<MeshDim>& dims) {
  const auto format = [](std::string* out, const MeshDim& dim) {
    absl::StrAppend(out, dim.name, "=", dim.size);
  };
  return absl::StrCat("[", absl::StrJoin(dims, ", ", format), "]");
}

}  // namespace

absl::StatusOr<DeviceMesh> DeviceMesh::Create(std::vector<MeshDim> dims) {
  if (dims.empty()) return Bad("a mesh needs at least one dim", "[]");
  absl::btree_set<std::string> names;
  int64_t size = 1;
  for (const MeshDim& dim : dims) {
    if (!IsMeshDimName(dim.name)) {
      return Bad("a mesh dim's name must be an identifier",
                 absl::StrCat("\"", dim.name, "\""));
    }
    if (!names.insert(dim.name).second) {
      return Bad(absl::StrCat("mesh dim \"", dim.name, "\" occurs twice"),
                 DimsToString(dims));
    }
    if (dim.size < 1) {
      return Bad(absl::StrCat("mesh dim \"", dim.name,
                              "\" must have a size of at least 1"),
                 absl::StrCat(dim.size));
    }
    size *= dim.size;
    if (size > kMaxRanks) {
      return Bad(absl::StrCat("a mesh has at most ", kMaxRanks, " ranks"),
                 DimsToString(dims));
    }
  }
  DeviceMesh mesh;
  mesh.dims_ = std::move(dims);
  mesh.size_ = static_cast<int>(size);
  return mesh;
}

int DeviceMesh::FindDim(absl::string_view name) const {
  for (int i = 0; i < ndim(); ++i) {
    if (dims_[i].name == name) return i;
  }
  return -1;
}

std::vector<int> DeviceMesh::Coordinate(int rank) const {
  std::vector<int> coordinate(ndim());
  for (int i = ndim() - 1; i >= 0; --i) {
    coordinate[i] = rank % dims_[i].size;
    rank /= dims_[i].size;
  }
  return coordinate;
}

int DeviceMesh::Rank(absl::Span<const int> coordinate) const {
  int rank = 0;
  for (int i = 0; i < ndim(); ++i) rank = rank * dims_[i].size + coordinate[i];
  return rank;
}

std::vector<int> DeviceMesh::Group(int rank, int mesh_dim) const {
  std::vector<int> coordinate = Coordinate(rank);
  std::vector<int> group;
  for (int i = 0; i < dim_size(mesh_dim); ++i) {
    coordinate[mesh_dim] = i;
    group.push_back(Rank(coordinate));
  }
  return group;
}

absl::StatusOr<DeviceMesh> DeviceMesh::Split(
    int mesh_dim, absl::Span<const int> sizes) const {
  if (mesh_dim < 0 || mesh_dim >= ndim()) {
    return Bad(absl::StrCat("mesh ", ToString(), " has no dim of that index"),
               absl::StrCat(mesh_dim));
  }
  int64_t product = 1;
  for (const int size : sizes) product = size < 1 ? 0 : product * size;
  if (product != dim_size(mesh_dim)) {
    return Bad(absl::StrCat("the sub-dims of mesh dim \"", dims_[mesh_dim].name,
                            "\" must multiply to ", dim_size(mesh_dim)),
               absl::StrCat("[", absl::StrJoin(sizes, ", "), "]"));
  }
  std::vector<MeshDim> split;
  for (int i = 0; i < ndim(); ++i) {
    if (i != mesh_dim) {
      split.push_back(dims_[i]);
      continue;
    }
    for (int j = 0; j < static_cast<int>(sizes.size()); ++j) {
      split.push_back({absl::StrCat(dims_[i].name, ".", j), sizes[j]});
    }
  }
  return Create(std::move(split));
}

std::string DeviceMesh::ToString() const { return DimsToString(dims_); }

}  // namespace shardplane
