#include "worker/shm_group.h"

#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "common/tensor_spec.h"
#include "worker/shm/shm_calls.h"
#include "worker/shm/shm_dim_calls.h"

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

// Of a chunk that lies in several. Shorter ones cost more than laying the
// tensor out anew.
constexpr int64_t kShortestRunBytes = 64;

// The same on all ranks, which run the same transfers: the first one's chunks,
// the longest, decide.
bool InShortRuns(const Shape& whole, int dim, int ranks,
                 int64_t element_bytes) {
  int64_t runs = 1;
  for (int before = 0; before < dim; ++before) runs *= whole[before];
  Shape run(whole.begin() + dim, whole.end());
  run[0] = Chunk(whole[dim], ranks, 0).size;
  return runs > 1 && NumElements(run) * element_bytes < kShortestRunBytes;
}

}  // namespace

ShmGroup::ShmGroup(int rank, ShmGroupMemory memory,
                   std::chrono::milliseconds timeout)
    : ProcessGroup(rank, memory.segment->sizes().ranks),
      backend_(
          c10::make_intrusive<ShmBackend>(rank, std::move(memory), timeout)) {}

at::Tensor ShmGroup::AllReduce(const at::Tensor& input, ReduceOp op) {
  at::Tensor output = at::empty_like(input);
  backend_->Run(AllReduceCall(input, output, ToC10d(op)));
  return output;
}

at::Tensor ShmGroup::ReduceScatter(const at::Tensor& input, ReduceOp op) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] /= size();
  at::Tensor output = at::empty(sizes, input.options());
  backend_->Run(
      ReduceScatterFromCall(backend_->place(), output, input, ToC10d(op)));
  return output;
}

void ShmGroup::AllGather(const at::Tensor& output, const at::Tensor& input) {
  backend_->Run(AllGatherIntoCall(backend_->place(), output, input));
}

void ShmGroup::AllToAll(const at::Tensor& output, const at::Tensor& input,
                        absl::Span<const int64_t> output_counts,
                        absl::Span<const int64_t> input_counts) {
  backend_->Run(AllToAllCall(backend_->place(), output.view({-1}),
                             input.view({-1}),
                             {output_counts.begin(), output_counts.end()},
                             {input_counts.begin(), input_counts.end()}));
}

void ShmGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                       int root) {
  std::vector<at::Tensor> parts;
  if (rank() == root) {
    parts = input.view({-1}).split_with_sizes(
        std::vector<int64_t>(size(), input.numel() / size()));
  }
  backend_->Run(ScatterCall(backend_->place(), output, std::move(parts), root));
}

void ShmGroup::Broadcast(const at::Tensor& buffer, int root) {
  backend_->Run(BroadcastCall(backend_->place(), buffer, root));
}

BegunCollective ShmGroup::Begin(c10d::OpType op, ShmCall call,
                                at::Tensor output) {
  return [work = backend_->Start(op, std::move(call)),
          output = std::move(output)] {
    work->wait();
    return output;
  };
}

BegunCollective ShmGroup::BeginAllReduce(const at::Tensor& input, ReduceOp op) {
  const at::Tensor output = at::empty_like(input);
  return Begin(c10d::OpType::ALLREDUCE,
               AllReduceCall(input, output, ToC10d(op)), output);
}

BegunCollective ShmGroup::BeginReduceScatter(const at::Tensor& input,
                                             ReduceOp op) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] /= size();
  const at::Tensor output = at::empty(sizes, input.options());
  return Begin(
      c10d::OpType::_REDUCE_SCATTER_BASE,
      ReduceScatterFromCall(backend_->place(), output, input, ToC10d(op)),
      output);
}

BegunCollective ShmGroup::BeginAllGather(const at::Tensor& input) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] *= size();
  const at::Tensor output = at::empty(sizes, input.options());
  return Begin(c10d::OpType::_ALLGATHER_BASE,
               AllGatherIntoCall(backend_->place(), output, input), output);
}

at::Tensor ShmGroup::AllGatherAlong(const at::Tensor& input, int dim,
                                    int64_t extent) {
  Shape sizes = input.sizes().vec();
  sizes[dim] = extent;
  if (InShortRuns(sizes, dim, size(), input.element_size()))
    return ProcessGroup::AllGatherAlong(input, dim, extent);
  at::Tensor output = at::empty(sizes, input.options());
  backend_->Run(
      AllGatherAlongCall(backend_->place(), output, input.contiguous(), dim));
  return output;
}

at::Tensor ShmGroup::ReduceScatterAlong(const at::Tensor& input, int dim,
                                        ReduceOp op) {
  Shape sizes = input.sizes().vec();
  if (InShortRuns(sizes, dim, size(), input.element_size()))
    return ProcessGroup::ReduceScatterAlong(input, dim, op);
  sizes[dim] = Chunk(sizes[dim], size(), rank()).size;
  at::Tensor output = at::empty(sizes, input.options());
  backend_->Run(ReduceScatterAlongCall(backend_->place(), output,
                                       input.contiguous(), dim, ToC10d(op)));
  return output;
}

at::Tensor ShmGroup::AllToAllAlong(const at::Tensor& input, int from_dim,
                                   int to_dim, int64_t extent) {
  Shape whole = input.sizes().vec();
  whole[from_dim] = extent;
  const auto part = [&](int dim, int peer) {
    Shape shape = whole;
    shape[dim] = Chunk(whole[dim], size(), peer).size;
    return shape;
  };
  if (InShortRuns(part(from_dim, 0), to_dim, size(), input.element_size()) ||
      InShortRuns(part(to_dim, 0), from_dim, size(), input.element_size())) {
    return ProcessGroup::AllToAllAlong(input, from_dim, to_dim, extent);
  }
  at::Tensor output = at::empty(part(to_dim, rank()), input.options());
  backend_->Run(AllToAllAlongCall(backend_->place(), output, input.contiguous(),
                                  from_dim, to_dim));
  return output;
}

}  // namespace shardplane
