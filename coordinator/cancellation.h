// Ends calls that are under way.
#ifndef SHARDPLANE_COORDINATOR_CANCELLATION_H_
#define SHARDPLANE_COORDINATOR_CANCELLATION_H_

#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"

namespace shardplane {

// Thread-safe. Outlives the calls that are registered with it.
class Cancellation {
 public:
  // Runs the hooks of all calls that are registered, and at once that of every
  // call that is registered later. A hook must not block or call back here.
  void Cancel();
  bool cancelled() const;

  // Keeps a hook registered; movable neither, made where the call lives.
  class Registration {
   public:
    Registration() = default;
    ~Registration() { Reset(); }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;
    // `cancellation` may be nullptr: then nothing happens.
    void Set(Cancellation* cancellation, std::function<void()> hook);
    // Afterwards the hook does not run and will not.
    void Reset();

   private:
    Cancellation* cancellation_ = nullptr;
    uint64_t id_ = 0;
  };

 private:
  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  absl::btree_map<uint64_t, std::function<void()>> hooks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_CANCELLATION_H_
