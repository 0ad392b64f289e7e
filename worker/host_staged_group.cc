#include "worker/host_staged_group.h"

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

at::Tensor OnHost(const at::Tensor& tensor) {
  return tensor.defined() ? CopyTo(tensor, c10::kCPU) : tensor;
}

at::Tensor EmptyOnHost(const at::Tensor& like) {
  return at::empty(like.sizes(), like.options().device(c10::kCPU));
}

}  // namespace

at::Tensor HostStagedGroup::AllReduce(const at::Tensor& input, ReduceOp op) {
  return CopyTo(host_->AllReduce(OnHost(input), op), device_);
}

at::Tensor HostStagedGroup::ReduceScatter(const at::Tensor& input,
                                          ReduceOp op) {
  return CopyTo(host_->ReduceScatter(OnHost(input), op), device_);
}

at::Tensor HostStagedGroup::AllGatherAlong(const at::Tensor& input, int dim,
                                           int64_t extent) {
  return CopyTo(host_->AllGatherAlong(OnHost(input), dim, extent), device_);
}

at::Tensor HostStagedGroup::ReduceScatterAlong(const at::Tensor& input, int dim,
                                               ReduceOp op) {
  return CopyTo(host_->ReduceScatterAlong(OnHost(input), dim, op), device_);
}

at::Tensor HostStagedGroup::AllToAllAlong(const at::Tensor& input, int from_dim,
                                          int to_dim, int64_t extent) {
  return CopyTo(host_->AllToAllAlong(OnHost(input), from_dim, to_dim, extent),
                device_);
}

void HostStagedGroup::AllGather(const at::Tensor& output,
                                const at::Tensor& input) {
  const at::Tensor received = EmptyOnHost(output);
  host_->AllGather(received, OnHost(input));
  output.copy_(received);
}

void HostStagedGroup::AllToAll(const at::Tensor& output,
                               const at::Tensor& input,
                               absl::Span<const int64_t> output_counts,
                               absl::Span<const int64_t> input_counts) {
  const at::Tensor received = EmptyOnHost(output);
  host_->AllToAll(received, OnHost(input), output_counts, input_counts);
  output.copy_(received);
}

void HostStagedGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                              int root) {
  const at::Tensor received = EmptyOnHost(output);
  host_->Scatter(received, OnHost(input), root);
  output.copy_(received);
}

void HostStagedGroup::Broadcast(const at::Tensor& buffer, int root) {
  const at::Tensor bytes = OnHost(buffer);
  host_->Broadcast(bytes, root);
  if (rank() != root) buffer.copy_(bytes);
}

}  // namespace shardplane
