// Collectives of tensors as transfers: which memory goes where.
#ifndef SHARDPLANE_WORKER_SHM_SHM_CALLS_H_
#define SHARDPLANE_WORKER_SHM_SHM_CALLS_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/inlined_vector.h"
#include "torch/csrc/distributed/c10d/Types.hpp"
#include "worker/shm/transfer.h"

namespace shardplane {

// Up to here each rank reduces everything for itself: one wait a call. Beyond,
// each reduces one part for all: two, but less work.
inline constexpr int64_t kShmOneShotBytes = 8 * 1024;

// Mostly one.
using ShmTensors = absl::InlinedVector<at::Tensor, 2>;

// A transfer and the tensors whose memory it names.
struct ShmCall {
  ShmTransfer transfer;
  ShmTensors inputs;
  ShmTensors outputs;
};

struct ShmPlace {
  int rank = 0;
  int size = 1;
};

// All throw c10::ValueError for tensors that do not fit, are not contiguous or
// not on the CPU, and for reductions that their type has not. Names are c10d's;
// "Into" and "From" take one tensor for the parts of all ranks.

ShmCall AllReduceCall(const at::Tensor& input, const at::Tensor& output,
                      const c10d::ReduceOp& op);
// Leaves the tensors of other ranks than `root` as they are.
ShmCall ReduceCall(const ShmPlace& place, const at::Tensor& tensor,
                   int64_t root, const c10d::ReduceOp& op);
ShmCall BroadcastCall(const ShmPlace& place, const at::Tensor& tensor,
                      int64_t root);

ShmCall AllGatherCall(const ShmPlace& place, std::vector<at::Tensor> outputs,
                      const at::Tensor& input);
ShmCall AllGatherIntoCall(const ShmPlace& place, const at::Tensor& output,
                          const at::Tensor& input);
// `outputs` count on rank `root` alone.
ShmCall GatherCall(const ShmPlace& place, std::vector<at::Tensor> outputs,
                   const at::Tensor& input, int64_t root);

// `inputs` count on rank `root` alone.
ShmCall ScatterCall(const ShmPlace& place, const at::Tensor& output,
                    std::vector<at::Tensor> inputs, int64_t root);
ShmCall ReduceScatterCall(const ShmPlace& place, const at::Tensor& output,
                          std::vector<at::Tensor> inputs,
                          const c10d::ReduceOp& op);
ShmCall ReduceScatterFromCall(const ShmPlace& place, const at::Tensor& output,
                              const at::Tensor& input,
                              const c10d::ReduceOp& op);

ShmCall AllToAllCall(const ShmPlace& place, std::vector<at::Tensor> outputs,
                     std::vector<at::Tensor> inputs);
// Splits of the first dims; none: equal ones, on all ranks.
ShmCall AllToAllCall(const ShmPlace& place, const at::Tensor& output,
                     const at::Tensor& input,
                     const std::vector<int64_t>& output_splits,
                     const std::vector<int64_t>& input_splits);

ShmCall BarrierCall(const ShmPlace& place);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_CALLS_H_
