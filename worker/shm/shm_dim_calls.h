// Collectives along a dim of tensors: chunks of it straight from and to where
// they lie.
#ifndef SHARDPLANE_WORKER_SHM_SHM_DIM_CALLS_H_
#define SHARDPLANE_WORKER_SHM_SHM_DIM_CALLS_H_

#include "ATen/core/Tensor.h"
#include "torch/csrc/distributed/c10d/Types.hpp"
#include "worker/shm/shm_calls.h"

namespace shardplane {

// Ranks' parts of a dim are those of Chunk (common/tensor_spec): uneven, some
// perhaps empty. All throw as those of worker/shm/shm_calls do.

// `input`: this rank's chunk of `output`. Chunks [2, 2], [2, 2], [2, 1] along
// dim 1 -> [2, 5].
ShmCall AllGatherAlongCall(const ShmPlace& place, const at::Tensor& output,
                           const at::Tensor& input, int dim);
// `output`: this rank's chunk of the sum of inputs.
ShmCall ReduceScatterAlongCall(const ShmPlace& place, const at::Tensor& output,
                               const at::Tensor& input, int dim,
                               const c10d::ReduceOp& op);
// `input`: this rank's chunk of from_dim, whole in to_dim; `output` the other
// way round.
ShmCall AllToAllAlongCall(const ShmPlace& place, const at::Tensor& output,
                          const at::Tensor& input, int from_dim, int to_dim);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_DIM_CALLS_H_
