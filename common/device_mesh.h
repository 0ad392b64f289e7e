// The arrangement of a gang's ranks.
#ifndef SHARDPLANE_COMMON_DEVICE_MESH_H_
#define SHARDPLANE_COMMON_DEVICE_MESH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shardplane {

struct MeshDim {
  std::string name;
  int size = 1;
  friend bool operator==(const MeshDim&, const MeshDim&) = default;
};

// Named dims over ranks 0 … size-1, row-major: the last dim varies fastest.
// A value; valid once created. Text form: `[dp=2, tp=4]`.
class DeviceMesh {
 public:
  // InvalidArgument: no dim, a size below 1, a name that is empty or not an
  // identifier (sub-dims may hold a "."), a name twice, over 2^20 ranks.
  static absl::StatusOr<DeviceMesh> Create(std::vector<MeshDim> dims);

  DeviceMesh() = default;  // one rank, no dims

  const std::vector<MeshDim>& dims() const { return dims_; }
  int ndim() const { return static_cast<int>(dims_.size()); }
  int size() const { return size_; }
  int dim_size(int mesh_dim) const { return dims_[mesh_dim].size; }

  // Index of the dim of that name, or -1.
  int FindDim(absl::string_view name) const;

  // rank 5 of [dp=2, tp=4] -> {1, 1}; and back.
  std::vector<int> Coordinate(int rank) const;
  int Rank(absl::Span<const int> coordinate) const;

  // The ranks that differ from `rank` along `mesh_dim` only, in order:
  // rank 5 of [dp=2, tp=4], dim 1 -> {4, 5, 6, 7}.
  std::vector<int> Group(int rank, int mesh_dim) const;

  // Splits one dim into sub-dims, major first, named "tp.0", "tp.1":
  // [tp=4] split by {2, 2} -> [tp.0=2, tp.1=2]. Ranks keep their numbers.
  // InvalidArgument if the sizes do not multiply to the dim's.
  absl::StatusOr<DeviceMesh> Split(int mesh_dim,
                                   absl::Span<const int> sizes) const;

  std::string ToString() const;

  friend bool operator==(const DeviceMesh&, const DeviceMesh&) = default;

 private:
  std::vector<MeshDim> dims_;
  int size_ = 1;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_DEVICE_MESH_H_
