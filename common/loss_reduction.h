// The argument "reduction" of torch's losses, as the graph has it: a number.
#ifndef SHARDPLANE_COMMON_LOSS_REDUCTION_H_
#define SHARDPLANE_COMMON_LOSS_REDUCTION_H_

#include <cstdint>

namespace shardplane {

inline constexpr int64_t kNoReduction = 0;
inline constexpr int64_t kMeanReduction = 1;
inline constexpr int64_t kSumReduction = 2;
// Where nll_loss has it: after scores, target and weight.
inline constexpr int kNllReductionArgument = 3;

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_LOSS_REDUCTION_H_
