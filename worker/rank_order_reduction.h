// Sums that are the same bits on every rank, whatever brought the summands.
#ifndef SHARDPLANE_WORKER_RANK_ORDER_REDUCTION_H_
#define SHARDPLANE_WORKER_RANK_ORDER_REDUCTION_H_

#include "ATen/core/Tensor.h"
#include "common/placement.h"

namespace shardplane {

// Reduces pieces [W, ...] over their first dim, rank after rank. f16 and bf16
// by way of f32: they are rounded once.
at::Tensor ReduceInRankOrder(const at::Tensor& pieces, ReduceOp op);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_RANK_ORDER_REDUCTION_H_
