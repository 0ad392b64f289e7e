#include "coordinator/task_threads.h"

#include <utility>

namespace shardplane {

TaskThreads::~TaskThreads() {
  std::list<Task> tasks;
  {
    absl::MutexLock lock(&mu_);
    for (Task& task : tasks_) tasks.push_back({std::move(task.thread)});
  }
  for (Task& task : tasks) task.thread.join();
}

void TaskThreads::Add(absl::AnyInvocable<void()> task) {
  absl::MutexLock lock(&mu_);
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    if (!it->over) {
      ++it;
      continue;
    }
    it->thread.join();
    it = tasks_.erase(it);
  }
  Task& added = tasks_.emplace_back();
  added.thread = std::thread([this, &added, task = std::move(task)]() mutable {
    task();
    absl::MutexLock over(&mu_);
    added.over = true;
  });
}

}  // namespace shardplane
