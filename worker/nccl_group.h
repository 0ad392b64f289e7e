// A process group between GPUs, over torch's ProcessGroupNCCL. Linking this
// file's target is what makes a binary one for GPUs (worker/cuda_support).
#ifndef SHARDPLANE_WORKER_NCCL_GROUP_H_
#define SHARDPLANE_WORKER_NCCL_GROUP_H_

#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "c10/core/Event.h"
#include "worker/cuda_support.h"
#include "worker/process_groups.h"

namespace c10d {
class ProcessGroupNCCL;
class Work;
}  // namespace c10d

namespace shardplane {

// NCCL's own collectives. A call puts work on the GPU and returns; the current
// stream goes on behind it, so that kernels find the result. The host waits in
// Finish. Sums are alike on every rank, in an order that NCCL chooses, and for
// f16 and bf16 rounded at each addition.
class NcclGroup : public ProcessGroup {
 public:
  // Connects; blocks until all ranks have come to the store.
  // FailedPrecondition: ranks of the group share a GPU, and this NCCL, or the
  // environment, does not let them.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Create(
      const c10::intrusive_ptr<c10d::Store>& store,
      const CudaGroupOptions& options);
  ~NcclGroup() override;

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) override;
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) override;
  void AllGather(const at::Tensor& output, const at::Tensor& input) override;
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts) override;
  void Scatter(const at::Tensor& output, const at::Tensor& input,
               int root) override;
  void Broadcast(const at::Tensor& buffer, int root) override;
  BegunCollective BeginAllReduce(const at::Tensor& input, ReduceOp op) override;
  BegunCollective BeginReduceScatter(const at::Tensor& input,
                                     ReduceOp op) override;
  BegunCollective BeginAllGather(const at::Tensor& input) override;
  void Finish() override;
  // Returns at once: NCCL's part waits until graphs that have its collectives
  // are gone.
  void Abort() override;
  bool MayBeRecorded() const override { return true; }
  void SetRecording(bool recording) override { recording_ = recording; }
  void BeforeReplay() override { ThrowIfAborted(); }
  void AfterReplay() override;

 private:
  NcclGroup(c10::intrusive_ptr<c10d::ProcessGroupNCCL> backend,
            const CudaGroupOptions& options);

  // Calls `start`, which returns c10d's Work.
  template <typename Start>
  c10::intrusive_ptr<c10d::Work> Begin(Start&& start);
  // And puts the current stream behind it.
  template <typename Start>
  void Enqueue(Start&& start);
  void ThrowIfAborted();
  // Returns once `has_ended` says so. Throws, and aborts, after the timeout.
  void Await(absl::FunctionRef<bool()> has_ended);

  const std::chrono::milliseconds timeout_;
  const c10::intrusive_ptr<c10d::ProcessGroupNCCL> backend_;
  absl::Mutex mutex_;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  // Works of one group end in their order: the last one stands for all. Null
  // when all have ended.
  c10::intrusive_ptr<c10d::Work> last_;
  bool recording_ = false;
  std::optional<c10::Event> replayed_;  // behind the last graph
  std::thread aborter_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_NCCL_GROUP_H_
