// A process group between CPUs. Torch's Gloo moves the bytes.
#ifndef SHARDPLANE_WORKER_GLOO_GROUP_H_
#define SHARDPLANE_WORKER_GLOO_GROUP_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/process_groups.h"

namespace c10d {
class Backend;
class Store;
class Work;
}  // namespace c10d

namespace shardplane {

// Everything is sends and receives between pairs, all posted before any is
// waited for: one latency a call, and unlike c10d's collectives over Gloo they
// can be aborted while a peer is stopped. Sums are made in rank order.
class GlooGroup : public ProcessGroup {
 public:
  struct Options {
    int rank = 0;
    int size = 1;
    std::chrono::milliseconds timeout{60'000};  // of one call
    std::string hostname = "127.0.0.1";         // where peers connect to
  };

  // Blocks until all ranks have come to the store.
  GlooGroup(const c10::intrusive_ptr<c10d::Store>& store,
            const Options& options);
  ~GlooGroup() override;

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) override;
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) override;
  void AllGather(const at::Tensor& output, const at::Tensor& input) override;
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts) override;
  void Scatter(const at::Tensor& output, const at::Tensor& input,
               int root) override;
  void Broadcast(const at::Tensor& buffer, int root) override;
  void Finish() override {}  // calls block
  void Abort() override;

 private:
  // Sends and receives part by part: an empty part, or one's own, is neither
  // sent nor waited for.
  void Exchange(std::vector<at::Tensor> sent, std::vector<at::Tensor> received);
  void Post(std::vector<at::Tensor> sent, std::vector<at::Tensor> received);
  void Wait();

  const std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  int tag_ = 0;  // of the next call; the same on all ranks
  absl::Mutex mutex_;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<c10::intrusive_ptr<c10d::Work>> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GLOO_GROUP_H_
