// The reductions of collectives over shared memory, for every element type.
#ifndef SHARDPLANE_WORKER_SHM_REDUCTIONS_H_
#define SHARDPLANE_WORKER_SHM_REDUCTIONS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "c10/core/ScalarType.h"
#include "worker/shm/transfer.h"

namespace shardplane {

// As c10d names and orders them.
enum class ShmReduction : uint8_t {
  kSum,
  kAvg,
  kProduct,
  kMin,
  kMax,
  kBand,
  kBor,
  kBxor,
};

// Rank after rank, so that results are the same bits on every rank, and those
// of ReduceInRankOrder (worker/rank_order_reduction) where that knows the
// reduction: types of 16 and 8 bits by way of f32, rounded once; maximum and
// minimum keep NaN; integers wrap; the sum of bools is "or", their product
// "and". InvalidArgument, NO_SUCH_REDUCTION: an average of integers, an order
// of complex numbers, bits of floats, or a type that is no number.
absl::StatusOr<ShmReducer> ReducerOf(c10::ScalarType type,
                                     ShmReduction reduction);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_REDUCTIONS_H_
