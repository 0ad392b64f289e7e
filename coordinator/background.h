// Work that no caller waits for.
#ifndef SHARDPLANE_COORDINATOR_BACKGROUND_H_
#define SHARDPLANE_COORDINATOR_BACKGROUND_H_

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// One thread that runs tasks in order. Thread-safe. The destructor runs what
// is still queued.
class Background {
 public:
  Background() : thread_([this] { Work(); }) {}
  ~Background();

  void Add(std::function<void()> task);
  // Whether all that was added before is done by `deadline`.
  bool WaitUntilIdle(absl::Time deadline);

 private:
  void Work();

  absl::Mutex mu_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_BACKGROUND_H_
