// The connections of one gang: a process group for each mesh dim that has
// more than one rank. Torch's Gloo moves the bytes; worker/collectives says
// what they mean.
#ifndef SHARDPLANE_WORKER_PROCESS_GROUPS_H_
#define SHARDPLANE_WORKER_PROCESS_GROUPS_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "worker/executor.h"

namespace c10d {
class Backend;
class Work;
}  // namespace c10d

namespace shardplane {

// One group of ranks. Moves contiguous buffers whose numbers of elements every
// rank of the group knows; element types do not matter to it. Calls block and
// throw what c10d throws. One thread calls it, except Abort.
//
// Everything is sends and receives between pairs, all posted before any is
// waited for: one latency a call, and unlike c10d's collectives over Gloo they
// can be aborted while a peer is stopped.
class ProcessGroup {
 public:
  ProcessGroup(c10::intrusive_ptr<c10d::Backend> backend, int rank, int size,
               std::chrono::milliseconds timeout);
  ~ProcessGroup();

  int rank() const { return rank_; }  // in the group
  int size() const { return size_; }

  // output = the inputs of all ranks, one after the other.
  void AllGather(const at::Tensor& output, const at::Tensor& input);
  // Cuts input by input_counts (elements, one a rank), sends each its part;
  // output is what came, by rank.
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts);
  // Equal parts of `input`, which is defined on rank `root` alone.
  void Scatter(const at::Tensor& output, const at::Tensor& input, int root);
  void Broadcast(const at::Tensor& buffer, int root);

  // Ends a running call, and every later one, with c10::DistBackendError; any
  // thread.
  void Abort();

 private:
  // Sends and receives part by part: an empty part, or one's own, is neither
  // sent nor waited for.
  void Exchange(std::vector<at::Tensor> sent, std::vector<at::Tensor> received);
  void Post(std::vector<at::Tensor> sent, std::vector<at::Tensor> received);
  void Wait();

  c10::intrusive_ptr<c10d::Backend> backend_;
  const int rank_;
  const int size_;
  const std::chrono::milliseconds timeout_;
  int tag_ = 0;  // of the next call; the same on all ranks
  absl::Mutex mutex_;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<c10::intrusive_ptr<c10d::Work>> running_ ABSL_GUARDED_BY(mutex_);
};

struct ProcessGroupsOptions {
  // The local address that peers connect to.
  std::string hostname = "127.0.0.1";
  c10::Device device = c10::Device(c10::kCPU);
};

class ProcessGroups {
 public:
  // Blocks until all ranks are there. Throws what c10d throws (a rank that
  // does not come: c10::DistStoreError). Unimplemented: no transport for the
  // device.
  static absl::StatusOr<std::unique_ptr<ProcessGroups>> Create(
      const GangSpec& spec, std::shared_ptr<GangStore> store,
      const ProcessGroupsOptions& options);

  // nullptr for a mesh dim of size 1.
  ProcessGroup* group(int mesh_dim) const { return groups_[mesh_dim].get(); }

  // Ends running calls with an exception; any thread.
  void Abort();

 private:
  std::vector<std::unique_ptr<ProcessGroup>> groups_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PROCESS_GROUPS_H_
