#include "worker/process_groups.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "torch/csrc/distributed/c10d/PrefixStore.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "worker/gang_store_adapter.h"

namespace shardplane {
namespace {

// Bytes travel, whatever the element type: Gloo knows no bool or int16.
at::Tensor Bytes(const at::Tensor& buffer) {
  TORCH_INTERNAL_ASSERT(buffer.is_contiguous());
  return buffer.view({-1}).view(at::kByte);
}

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

c10::intrusive_ptr<c10d::Backend> MakeGloo(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
    std::chrono::milliseconds timeout, const std::string& hostname) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(
      c10d::ProcessGroupGloo::createDeviceForHostname(hostname));
  // Calls come one at a time, each waited for.
  options->threads = 1;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size,
                                                     options);
}

}  // namespace

ProcessGroup::ProcessGroup(c10::intrusive_ptr<c10d::Backend> backend, int rank,
                           int size, std::chrono::milliseconds timeout)
    : backend_(std::move(backend)),
      rank_(rank),
      size_(size),
      timeout_(timeout) {}

ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::Post(std::vector<at::Tensor> sent,
                        std::vector<at::Tensor> received) {
  absl::MutexLock lock(&mutex_);
  TORCH_CHECK_WITH(DistBackendError, !aborted_, "Aborted");
  const int tag = tag_++;
  // Starting behind oneself spreads the load over the receivers.
  for (int i = 1; i < size_; ++i) {
    const int peer = (rank_ + size_ - i) % size_;
    if (received[peer].numel() == 0) continue;
    std::vector<at::Tensor> buffer{received[peer]};
    running_.push_back(backend_->recv(buffer, peer, tag));
  }
  for (int i = 1; i < size_; ++i) {
    const int peer = (rank_ + i) % size_;
    if (sent[peer].numel() == 0) continue;
    std::vector<at::Tensor> buffer{sent[peer]};
    running_.push_back(backend_->send(buffer, peer, tag));
  }
}

void ProcessGroup::Wait() {
  std::vector<c10::intrusive_ptr<c10d::Work>> running;
  {
    absl::MutexLock lock(&mutex_);
    running = running_;
  }
  for (const auto& work : running) {
    TORCH_CHECK_WITH(DistBackendError, work->wait(timeout_), "Aborted");
  }
}

void ProcessGroup::Exchange(std::vector<at::Tensor> sent,
                            std::vector<at::Tensor> received) {
  // The works keep the buffers alive; after a failure Gloo may still use them,
  // so they go only when the next call comes or the group ends.
  {
    absl::MutexLock lock(&mutex_);
    running_.clear();
  }
  if (received[rank_].numel() > 0) received[rank_].copy_(sent[rank_]);
  Post(std::move(sent), std::move(received));
  Wait();
  absl::MutexLock lock(&mutex_);
  running_.clear();
}

void ProcessGroup::AllGather(const at::Tensor& output,
                             const at::Tensor& input) {
  Exchange(std::vector<at::Tensor>(size_, Bytes(input)),
           Bytes(output).chunk(size_));
}

void ProcessGroup::AllToAll(const at::Tensor& output, const at::Tensor& input,
                            absl::Span<const int64_t> output_counts,
                            absl::Span<const int64_t> input_counts) {
  Exchange(Split(Bytes(input), input_counts, input.element_size()),
           Split(Bytes(output), output_counts, output.element_size()));
}

void ProcessGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                           int root) {
  std::vector<at::Tensor> received(size_, at::empty({0}, at::kByte));
  std::vector<at::Tensor> sent = received;
  received[root] = Bytes(output);
  if (rank_ == root && input.numel() > 0) sent = Bytes(input).chunk(size_);
  Exchange(std::move(sent), std::move(received));
}

void ProcessGroup::Broadcast(const at::Tensor& buffer, int root) {
  std::vector<at::Tensor> received(size_, at::empty({0}, at::kByte));
  std::vector<at::Tensor> sent = received;
  if (rank_ == root) {
    sent.assign(size_, Bytes(buffer));
  } else {
    received[root] = Bytes(buffer);
  }
  Exchange(std::move(sent), std::move(received));
}

void ProcessGroup::Abort() {
  absl::MutexLock lock(&mutex_);
  aborted_ = true;
  for (const auto& work : running_) work->abort();
}

absl::StatusOr<std::unique_ptr<ProcessGroups>> ProcessGroups::Create(
    const GangSpec& spec, std::shared_ptr<GangStore> store,
    const ProcessGroupsOptions& options) {
  if (!options.device.is_cpu()) {
    return MakeError(absl::StatusCode::kUnimplemented,
                     absl::StrCat("collectives: expected device cpu, got: ",
                                  options.device.str()),
                     {.reason = "DEVICE_NOT_SUPPORTED", .metadata = {}});
  }
  auto adapter =
      c10::make_intrusive<GangStoreAdapter>(std::move(store), spec.timeout);
  auto groups = std::make_unique<ProcessGroups>();
  const std::vector<int> coordinate = spec.mesh.Coordinate(spec.rank);
  for (int dim = 0; dim < spec.mesh.ndim(); ++dim) {
    const int size = spec.mesh.dim_size(dim);
    if (size == 1) {
      groups->groups_.push_back(nullptr);
      continue;
    }
    // The groups of one mesh dim are told apart by their ranks.
    const std::string prefix = absl::StrCat(
        dim, "/", absl::StrJoin(spec.mesh.Group(spec.rank, dim), ","));
    auto group_store = c10::make_intrusive<c10d::PrefixStore>(prefix, adapter);
    groups->groups_.push_back(std::make_unique<ProcessGroup>(
        MakeGloo(group_store, coordinate[dim], size, spec.timeout,
                 options.hostname),
        coordinate[dim], size, spec.timeout));
  }
  return groups;
}

void ProcessGroups::Abort() {
  for (const std::unique_ptr<ProcessGroup>& group : groups_) {
    if (group != nullptr) group->Abort();
  }
}

}  // namespace shardplane
