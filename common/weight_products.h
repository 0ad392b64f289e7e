// Gradients of weights that a rank need not make to update the weights by them.
#ifndef SHARDPLANE_COMMON_WEIGHT_PRODUCTS_H_
#define SHARDPLANE_COMMON_WEIGHT_PRODUCTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/sharded_program.h"

namespace shardplane {

// The gradient of a weight of aten.linear.default is the product of what the
// op got and of the gradient of what it gave: kept as those two it takes less
// memory where the weight has more elements than they, and an optimizer that
// only adds it can add the product at once.
struct WeightProductRow {
  int segment = 0;
  ValueId weight = 0;    // of the segment's inputs
  ValueId gradient = 0;  // what the program would make
  friend bool operator==(const WeightProductRow&,
                         const WeightProductRow&) = default;
};

// Of smaller gradients nobody notices that they are made.
inline constexpr int64_t kMinWeightProductBytes = int64_t{1} << 20;

// Those gradients whose product takes at most half their memory on the rank at
// `coordinate`: of f32 or f64, at least `min_bytes` of it, as the backward
// makes them, neither summed nor reduced, of weights that are one op's alone.
// None of a program that reshards: what the ops got may lose its memory.
std::vector<WeightProductRow> FindWeightProducts(
    const ShardedProgram& program, absl::Span<const int> coordinate,
    int64_t min_bytes = kMinWeightProductBytes);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_WEIGHT_PRODUCTS_H_
