#include "worker/shm_group.h"

#include <utility>
#include <vector>

#include "ATen/ATen.h"

namespace shardplane {
namespace {

c10d::ReduceOp ToC10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return c10d::ReduceOp::SUM;
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
  }
  return c10d::ReduceOp::UNUSED;
}

}  // namespace

ShmGroup::ShmGroup(int rank, ShmGroupMemory memory,
                   std::chrono::milliseconds timeout)
    : ProcessGroup(rank, memory.segment->sizes().ranks),
      backend_(
          c10::make_intrusive<ShmBackend>(rank, std::move(memory), timeout)) {}

at::Tensor ShmGroup::AllReduce(const at::Tensor& input, ReduceOp op) {
  const at::Tensor output = at::empty_like(input);
  c10d::AllreduceOptions options;
  options.reduceOp = ToC10d(op);
  backend_->AllReduceInto(output, input, options)->wait();
  return output;
}

at::Tensor ShmGroup::ReduceScatter(const at::Tensor& input, ReduceOp op) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] /= size();
  at::Tensor output = at::empty(sizes, input.options());
  at::Tensor buffer = input;
  c10d::ReduceScatterOptions options;
  options.reduceOp = ToC10d(op);
  backend_->_reduce_scatter_base(output, buffer, options)->wait();
  return output;
}

void ShmGroup::AllGather(const at::Tensor& output, const at::Tensor& input) {
  at::Tensor to = output;
  at::Tensor from = input;
  backend_->_allgather_base(to, from, {})->wait();
}

void ShmGroup::AllToAll(const at::Tensor& output, const at::Tensor& input,
                        absl::Span<const int64_t> output_counts,
                        absl::Span<const int64_t> input_counts) {
  at::Tensor to = output.view({-1});
  at::Tensor from = input.view({-1});
  std::vector<int64_t> output_splits(output_counts.begin(),
                                     output_counts.end());
  std::vector<int64_t> input_splits(input_counts.begin(), input_counts.end());
  backend_->alltoall_base(to, from, output_splits, input_splits, {})->wait();
}

void ShmGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                       int root) {
  std::vector<at::Tensor> to = {output};
  std::vector<std::vector<at::Tensor>> from;
  if (rank() == root) {
    const std::vector<int64_t> parts(size(), input.numel() / size());
    from = {input.view({-1}).split_with_sizes(parts)};
  }
  c10d::ScatterOptions options;
  options.rootRank = root;
  backend_->scatter(to, from, options)->wait();
}

void ShmGroup::Broadcast(const at::Tensor& buffer, int root) {
  std::vector<at::Tensor> tensors = {buffer};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  backend_->broadcast(tensors, options)->wait();
}

}  // namespace shardplane
