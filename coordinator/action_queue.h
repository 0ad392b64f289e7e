// One action at a time, in the order of arrival.
#ifndef SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_
#define SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_

#include <cstdint>
#include <functional>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// Thread-safe. Each deployment has one; it outlives its turns.
class ActionQueue {
 public:
  static constexpr int kMaxWaiting = 256;

  // Holds the queue until it is destroyed.
  class Turn {
   public:
    explicit Turn(ActionQueue* queue) : queue_(queue) {}
    Turn(Turn&& other) : queue_(other.queue_) { other.queue_ = nullptr; }
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (queue_ != nullptr) {
        queue_->Release();
      }
    }

   private:
    ActionQueue* queue_;
  };

  // Waits for its turn. DeadlineExceeded: it did not come in time. Cancelled:
  // it came, but the caller (who is asked by `cancelled`, if given) has gone.
  // ResourceExhausted: kMaxWaiting wait already.
  absl::StatusOr<Turn> Wait(absl::Time deadline,
                            const std::function<bool()>& cancelled = nullptr);

 private:
  void Release();

  absl::Mutex mu_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<uint64_t> waiting_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_ACTION_QUEUE_H_
