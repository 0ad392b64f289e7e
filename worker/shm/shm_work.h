// What a collective of ShmBackend (worker/shm/shm_backend) returns, and the
// channel that works share.
#ifndef SHARDPLANE_WORKER_SHM_SHM_WORK_H_
#define SHARDPLANE_WORKER_SHM_SHM_WORK_H_

#include <chrono>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "torch/csrc/distributed/c10d/Work.hpp"
#include "worker/shm/channel.h"
#include "worker/shm/shm_calls.h"
#include "worker/shm/transfer.h"

namespace shardplane {

// An ShmChannel for several threads, which keeps the buffers of its transfers.
class SharedShmChannel {
 public:
  explicit SharedShmChannel(std::unique_ptr<ShmChannel> channel)
      : channel_(std::move(channel)) {}

  // ShmChannel's.
  absl::StatusOr<ShmChannel::Ticket> Start(ShmCall call);
  // Both at once: the caller keeps the tensors, whose memory it is.
  absl::Status Run(ShmTransfer transfer, std::chrono::milliseconds timeout);
  absl::Status Wait(ShmChannel::Ticket ticket,
                    std::chrono::milliseconds timeout);
  absl::StatusOr<bool> Test(ShmChannel::Ticket ticket);
  // Also while another thread waits.
  void Abort() { channel_->Abort(); }

 private:
  struct Kept {
    ShmChannel::Ticket ticket;
    ShmTensors inputs;
    ShmTensors outputs;
  };
  void ReleaseUpTo(ShmChannel::Ticket ticket)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The pointer never changes; all calls but Abort hold the mutex.
  const std::unique_ptr<ShmChannel> channel_;
  absl::Mutex mutex_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mutex_);
};

// Nothing runs in the background: a collective goes on in wait, in isCompleted
// and in the calls of other collectives. Works can be waited for in any order;
// waiting for one completes all that were started before.
class ShmWork : public c10d::Work {
 public:
  // Completed by `ticket`; `timeout` of a wait that names none.
  ShmWork(int rank, c10d::OpType op, std::shared_ptr<SharedShmChannel> channel,
          ShmChannel::Ticket ticket, ShmTensors outputs,
          std::chrono::milliseconds timeout);

  bool isCompleted() override;
  // Throws c10::DistBackendError, as every later call does.
  bool wait(std::chrono::milliseconds timeout) override;
  std::vector<at::Tensor> result() override {
    return {outputs_.begin(), outputs_.end()};
  }
  // The whole backend's collectives.
  void abort() override { channel_->Abort(); }

 private:
  bool Completed();

  const std::shared_ptr<SharedShmChannel> channel_;  // with other works
  const ShmChannel::Ticket ticket_;
  const ShmTensors outputs_;
  const std::chrono::milliseconds timeout_;
};

// Throws what a status of the channel means to callers of c10d: ValueError for
// InvalidArgument, else DistBackendError.
[[noreturn]] void ThrowShmError(const absl::Status& status);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_WORK_H_
