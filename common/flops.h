// Floating-point operations of a program, by rank: where a cut is uneven,
// ranks differ.
#ifndef SHARDPLANE_COMMON_FLOPS_H_
#define SHARDPLANE_COMMON_FLOPS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/tensor_spec.h"

namespace shardplane {

// Multiply-adds count two.
struct Flops {
  int64_t forward = 0;
  int64_t backward = 0;
  friend bool operator==(const Flops&, const Flops&) = default;
};

// A sum over ops, kept apart by how they are cut: work that is proportional to
// the local sizes of the factors that are cut. Equal layers need no more room
// than one.
class FlopCount {
 public:
  // `cuts`: of an op's factors; `whole`: of the op with nothing cut.
  void Add(std::vector<DimCuts> cuts, const Flops& whole);
  // 7 rows of 2 flops over 2 ranks: 8 on the first, 6 on the second.
  Flops On(const DeviceMesh& mesh, absl::Span<const int> coordinate) const;

  friend bool operator==(const FlopCount&, const FlopCount&) = default;

 private:
  absl::btree_map<std::vector<DimCuts>, Flops> by_cuts_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_FLOPS_H_
