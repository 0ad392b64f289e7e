// A process group between GPUs that goes through the hosts' memory, where NCCL
// cannot.
#ifndef SHARDPLANE_WORKER_HOST_STAGED_GROUP_H_
#define SHARDPLANE_WORKER_HOST_STAGED_GROUP_H_

#include <memory>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "worker/process_groups.h"

namespace shardplane {

// Each call copies its tensors to the host, has `host` move or sum them there
// (in rank order, as between CPUs), and copies the results to `device`, which
// needs no memory beside theirs. Calls block until they have ended.
class HostStagedGroup : public ProcessGroup {
 public:
  HostStagedGroup(std::unique_ptr<ProcessGroup> host, c10::Device device)
      : ProcessGroup(host->rank(), host->size()),
        host_(std::move(host)),
        device_(device) {}

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) override;
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) override;
  at::Tensor AllGatherAlong(const at::Tensor& input, int dim,
                            int64_t extent) override;
  at::Tensor ReduceScatterAlong(const at::Tensor& input, int dim,
                                ReduceOp op) override;
  at::Tensor AllToAllAlong(const at::Tensor& input, int from_dim, int to_dim,
                           int64_t extent) override;
  void AllGather(const at::Tensor& output, const at::Tensor& input) override;
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts) override;
  void Scatter(const at::Tensor& output, const at::Tensor& input,
               int root) override;
  void Broadcast(const at::Tensor& buffer, int root) override;
  void Finish() override { host_->Finish(); }
  void Abort() override { host_->Abort(); }

 private:
  const std::unique_ptr<ProcessGroup> host_;
  const c10::Device device_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_HOST_STAGED_GROUP_H_
