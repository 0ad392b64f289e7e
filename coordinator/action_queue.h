// Who may act on a deployment: one action alone, or training steps together, in
// the order of arrival.
#ifndef SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_
#define SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// Thread-safe. Each deployment has one; it outlives its turns. Nobody
// overtakes: an action that is to be alone waits for the steps before it, and
// steps that come later wait for it.
class ActionQueue {
 public:
  static constexpr int kMaxWaiting = 256;
  static constexpr int kMaxSteps = 64;  // that have turns at a time

  enum class Kind {
    kAlone,
    kStep,  // beside other steps
  };

  // Holds the queue until it is destroyed.
  class Turn {
   public:
    Turn(ActionQueue* queue, Kind kind) : queue_(queue), kind_(kind) {}
    Turn(Turn&& other)
        : queue_(std::exchange(other.queue_, nullptr)), kind_(other.kind_) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (queue_ != nullptr) {
        queue_->Release(kind_);
      }
    }

   private:
    ActionQueue* queue_;
    Kind kind_;
  };

  // Waits for its turn. DeadlineExceeded: it did not come in time. Cancelled:
  // it came, but the caller (who is asked by `cancelled`, if given) has gone.
  // ResourceExhausted: kMaxWaiting wait already.
  absl::StatusOr<Turn> Wait(Kind kind, absl::Time deadline,
                            const std::function<bool()>& cancelled = nullptr);

 private:
  bool MayGo(Kind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !alone_ && (kind == Kind::kStep ? steps_ < kMaxSteps : steps_ == 0);
  }
  void Release(Kind kind);

  absl::Mutex mu_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<uint64_t> waiting_ ABSL_GUARDED_BY(mu_);  // first come, first
  bool alone_ ABSL_GUARDED_BY(mu_) = false;            // one has a turn
  int steps_ ABSL_GUARDED_BY(mu_) = 0;                 // so many have
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_
