#include "worker/gloo_group.h"

#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/zeros.h"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "worker/rank_order_reduction.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// Up to here each rank sends all its elements to all others and sums for
// itself: one latency. Beyond, each sums one part: two, but less to send.
constexpr int64_t kOneShotBytes = 64 * 1024;

std::vector<at::Tensor> Split(const at::Tensor& bytes,
                              absl::Span<const int64_t> counts,
                              int64_t element_size) {
  std::vector<at::Tensor> parts;
  int64_t offset = 0;
  for (const int64_t count : counts) {
    parts.push_back(bytes.narrow(0, offset, count * element_size));
    offset += count * element_size;
  }
  return parts;
}

// Zeros behind, up to `count` elements of a flat tensor.
at::Tensor PadTo(const at::Tensor& flat, int64_t count) {
  if (flat.numel() == count) return flat;
  at::Tensor padded = at::zeros({count}, flat.options());
  padded.narrow(0, 0, flat.numel()).copy_(flat);
  return padded;
}

c10::intrusive_ptr<c10d::Backend> MakeGloo(
    const c10::intrusive_ptr<c10d::Store>& store,
    const GlooGroup::Options& options) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(options.timeout);
  gloo->devices.push_back(
      c10d::ProcessGroupGloo::createDeviceForHostname(options.hostname));
  // Calls come one at a time, each waited for.
  gloo->threads = 1;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank,
                                                     options.size, gloo);
}

}  // namespace

GlooGroup::GlooGroup(const c10::intrusive_ptr<c10d::Store>& store,
                     const Options& options)
    : ProcessGroup(options.rank, options.size),
      timeout_(options.timeout),
      backend_(MakeGloo(store, options)) {}

GlooGroup::~GlooGroup() = default;

void GlooGroup::Post(std::vector<at::Tensor> sent,
                     std::vector<at::Tensor> received) {
  absl::MutexLock lock(&mutex_);
  TORCH_CHECK_WITH(DistBackendError, !aborted_, "Aborted");
  const int tag = tag_++;
  // Starting behind oneself spreads the load over the receivers.
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + size() - i) % size();
    if (received[peer].numel() == 0) continue;
    std::vector<at::Tensor> buffer{received[peer]};
    running_.push_back(backend_->recv(buffer, peer, tag));
  }
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    if (sent[peer].numel() == 0) continue;
    std::vector<at::Tensor> buffer{sent[peer]};
    running_.push_back(backend_->send(buffer, peer, tag));
  }
}

void GlooGroup::Wait() {
  std::vector<c10::intrusive_ptr<c10d::Work>> running;
  {
    absl::MutexLock lock(&mutex_);
    running = running_;
  }
  for (const auto& work : running) {
    TORCH_CHECK_WITH(DistBackendError, work->wait(timeout_), "Aborted");
  }
}

void GlooGroup::Exchange(std::vector<at::Tensor> sent,
                         std::vector<at::Tensor> received) {
  // The works keep the buffers alive; after a failure Gloo may still use them,
  // so they go only when the next call comes or the group ends.
  {
    absl::MutexLock lock(&mutex_);
    running_.clear();
  }
  if (received[rank()].numel() > 0) received[rank()].copy_(sent[rank()]);
  Post(std::move(sent), std::move(received));
  Wait();
  absl::MutexLock lock(&mutex_);
  running_.clear();
}

at::Tensor GlooGroup::AllReduce(const at::Tensor& input, ReduceOp op) {
  const at::Tensor sent = input.view({-1});
  const int64_t n = sent.numel();
  if (static_cast<int64_t>(sent.nbytes()) <= kOneShotBytes) {
    at::Tensor pieces = at::empty({size(), n}, sent.options());
    AllGather(pieces, sent);
    return ReduceInRankOrder(pieces, op).view(input.sizes());
  }
  const int64_t part = (n + size() - 1) / size();
  const std::vector<int64_t> counts(size(), part);
  at::Tensor pieces = at::empty({size(), part}, sent.options());
  AllToAll(pieces, PadTo(sent, part * size()), counts, counts);
  at::Tensor all = at::empty({size() * part}, sent.options());
  AllGather(all, ReduceInRankOrder(pieces, op));
  return all.narrow(0, 0, n).view(input.sizes());
}

at::Tensor GlooGroup::ReduceScatter(const at::Tensor& input, ReduceOp op) {
  const std::vector<int64_t> counts(size(), input.numel() / size());
  at::Tensor pieces = at::empty_like(input);
  AllToAll(pieces, input, counts, counts);
  std::vector<int64_t> by_rank = input.sizes().vec();
  by_rank[0] /= size();
  by_rank.insert(by_rank.begin(), size());
  return ReduceInRankOrder(pieces.view(by_rank), op);
}

void GlooGroup::AllGather(const at::Tensor& output, const at::Tensor& input) {
  Exchange(std::vector<at::Tensor>(size(), AsBytes(input)),
           AsBytes(output).chunk(size()));
}

void GlooGroup::AllToAll(const at::Tensor& output, const at::Tensor& input,
                         absl::Span<const int64_t> output_counts,
                         absl::Span<const int64_t> input_counts) {
  Exchange(Split(AsBytes(input), input_counts, input.element_size()),
           Split(AsBytes(output), output_counts, output.element_size()));
}

void GlooGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                        int root) {
  std::vector<at::Tensor> received(size(), at::empty({0}, at::kByte));
  std::vector<at::Tensor> sent = received;
  received[root] = AsBytes(output);
  if (rank() == root && input.numel() > 0) sent = AsBytes(input).chunk(size());
  Exchange(std::move(sent), std::move(received));
}

void GlooGroup::Broadcast(const at::Tensor& buffer, int root) {
  std::vector<at::Tensor> received(size(), at::empty({0}, at::kByte));
  std::vector<at::Tensor> sent = received;
  if (rank() == root) {
    sent.assign(size(), AsBytes(buffer));
  } else {
    received[root] = AsBytes(buffer);
  }
  Exchange(std::move(sent), std::move(received));
}

void GlooGroup::Abort() {
  absl::MutexLock lock(&mutex_);
  aborted_ = true;
  for (const auto& work : running_) work->abort();
}

}  // namespace shardplane
