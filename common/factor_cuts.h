// Between cuts of a tensor's dims and cuts of the factors that they are made
// of. Used by op_sharding.cc and packing.cc.
#ifndef SHARDPLANE_COMMON_FACTOR_CUTS_H_
#define SHARDPLANE_COMMON_FACTOR_CUTS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/op_rules.h"
#include "common/placement.h"

namespace shardplane {

// One list for each way of cutting over `ranks`: none where a plain cut is the
// same, else the largest units that cut so.
//   {16 in units of 4} over 4 -> none;  {24 in units of 8} over 2 -> itself
//   {24 in units of 4} over 4 -> {24 in units of 8}: 8, 8, 8 and none
Blocks CanonicalBlocks(std::vector<Block> list, int ranks);

// Where a factor stands in a dim: the sizes before it and behind it, major
// first, multiplied.
struct FactorPlace {
  int dim = -1;  // -1: nowhere
  int index = 0;
  int64_t before = 1;
  int64_t behind = 1;
  bool twice = false;  // in several places, so that it cannot be cut
};
FactorPlace PlaceOf(const std::vector<Factor>& factors, const DimFactors& dims,
                    int factor);

// The blocks of the dim in which a factor of `size` with these blocks stands:
// 6 heads in {2 groups, 6, 8 wide} -> two blocks of 48 in units of 8.
Blocks ToDim(const Blocks& factor, int64_t size, const FactorPlace& place,
             int ranks);
// The way back; nullopt if the cut of the dim does not meet the factor's edges.
std::optional<Blocks> ToFactor(const Blocks& dim, int64_t size,
                               const FactorPlace& place, int ranks);

// Those of each part of a factor that is parted into these sizes; nullopt if
// its blocks do not meet the parts' edges.
std::optional<std::vector<Blocks>> ToParts(const Blocks& factor, int64_t size,
                                           absl::Span<const int64_t> parts,
                                           int ranks);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_FACTOR_CUTS_H_
