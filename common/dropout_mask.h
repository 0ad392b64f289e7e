// Which elements a dropout keeps. Masks are counter-based: each element's fate
// is made from the seed, the step, the dropout's node and the element's index
// in the global tensor alone, so that every mesh drops the same elements and a
// recomputation repeats them.
#ifndef SHARDPLANE_COMMON_DROPOUT_MASK_H_
#define SHARDPLANE_COMMON_DROPOUT_MASK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/tensor_spec.h"

namespace shardplane {

// One mask: different values of any field give independent masks.
struct DropoutStream {
  uint64_t seed = 0;  // of the deployment
  uint64_t step = 0;
  int64_t node = 0;  // which dropout of the program
};

// Writes the mask of the part of a tensor of `sizes` that `part` names (one
// extent per dim) to `keep`, row-major, a byte an element: 1 with probability
// 1 - p, else 0. No sizes: one element. Of the whole f32[2, 3] and of its cut
// along dim 1:
//   {2, 3}, {{0, 2}, {0, 3}} -> 1 0 1 1 1 0
//   {2, 3}, {{0, 2}, {1, 2}} -> 0 1 1 0
// Element i of the global tensor, row-major, is kept if word i % 4 of block
// i / 4 of its stream is at least 2^32 p.
// InvalidArgument: p outside [0, 1]; a part outside the tensor, or of another
// number of elements than `keep`.
absl::Status DropoutMask(const DropoutStream& stream, double p,
                         absl::Span<const int64_t> sizes,
                         absl::Span<const Extent> part,
                         absl::Span<uint8_t> keep);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_DROPOUT_MASK_H_
