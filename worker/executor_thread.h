// The one thread on which a worker calls its Executor.
#ifndef SHARDPLANE_WORKER_EXECUTOR_THREAD_H_
#define SHARDPLANE_WORKER_EXECUTOR_THREAD_H_

#include <deque>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace shardplane {

// Runs functions one at a time, in the order in which they came. The
// destructor runs what is queued, then ends the thread. Thread-safe.
class ExecutorThread {
 public:
  ExecutorThread() : thread_([this] { Loop(); }) {}

  ~ExecutorThread() {
    Post(nullptr);
    thread_.join();
  }

  // Runs `function` on the thread and returns what it returns. Never call it
  // from the thread itself.
  template <typename Function>
  std::invoke_result_t<Function> Call(Function&& function) {
    std::optional<std::invoke_result_t<Function>> result;
    absl::Notification done;
    Post([&] {
      result.emplace(function());
      done.Notify();
    });
    done.WaitForNotification();
    return *std::move(result);
  }

  // Runs `task` on the thread, some time.
  using Task = absl::AnyInvocable<void()>;
  void Post(Task task) {
    absl::MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
  }

 private:
  void Loop() {
    while (true) {
      Task task = Next();
      if (task == nullptr) return;
      task();
    }
  }

  Task Next() {
    absl::MutexLock lock(&mutex_);
    const auto has_task = [this] {
      mutex_.AssertHeld();
      return !tasks_.empty();
    };
    mutex_.Await(absl::Condition(&has_task));
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }

  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_EXECUTOR_THREAD_H_
