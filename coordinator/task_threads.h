// Threads for work that goes on behind a call.
#ifndef SHARDPLANE_COORDINATOR_TASK_THREADS_H_
#define SHARDPLANE_COORDINATOR_TASK_THREADS_H_

#include <list>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace shardplane {

// A thread for each task. Thread-safe. The destructor waits for all.
class TaskThreads {
 public:
  ~TaskThreads();
  void Add(absl::AnyInvocable<void()> task);

 private:
  struct Task {
    std::thread thread;
    bool over = false;
  };
  absl::Mutex mu_;
  std::list<Task> tasks_ ABSL_GUARDED_BY(mu_);  // some are over
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_TASK_THREADS_H_
