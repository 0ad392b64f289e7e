// A process group between CPUs of one machine, over memory that they share.
#ifndef SHARDPLANE_WORKER_SHM_GROUP_H_
#define SHARDPLANE_WORKER_SHM_GROUP_H_

#include <chrono>

#include "ATen/core/Tensor.h"
#include "worker/process_groups.h"
#include "worker/shm/rendezvous.h"
#include "worker/shm/shm_backend.h"

namespace shardplane {

// Sums are made in rank order. A rank that dies ends the others' calls within
// some 10 ms.
class ShmGroup : public ProcessGroup {
 public:
  // `timeout`: of waiting for another rank.
  ShmGroup(int rank, ShmGroupMemory memory, std::chrono::milliseconds timeout);

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) override;
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) override;
  void AllGather(const at::Tensor& output, const at::Tensor& input) override;
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts) override;
  void Scatter(const at::Tensor& output, const at::Tensor& input,
               int root) override;
  void Broadcast(const at::Tensor& buffer, int root) override;
  // Straight from and to tensors, unless their chunks are many short runs.
  at::Tensor AllGatherAlong(const at::Tensor& input, int dim,
                            int64_t extent) override;
  at::Tensor ReduceScatterAlong(const at::Tensor& input, int dim,
                                ReduceOp op) override;
  at::Tensor AllToAllAlong(const at::Tensor& input, int from_dim, int to_dim,
                           int64_t extent) override;
  // They go on in other calls, and in the end's own.
  BegunCollective BeginAllReduce(const at::Tensor& input, ReduceOp op) override;
  BegunCollective BeginReduceScatter(const at::Tensor& input,
                                     ReduceOp op) override;
  BegunCollective BeginAllGather(const at::Tensor& input) override;
  void Finish() override {}  // calls block
  void Abort() override { backend_->abort(); }

 private:
  BegunCollective Begin(c10d::OpType op, ShmCall call, at::Tensor output);

  const c10::intrusive_ptr<ShmBackend> backend_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_GROUP_H_
