#include "coordinator/background.h"

#include <utility>

namespace shardplane {

Background::~Background() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void Background::Add(std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
}

bool Background::WaitUntilIdle(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto idle = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return tasks_.empty() && !busy_;
  };
  return mu_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

void Background::Work() {
  const auto has_work = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return !tasks_.empty() || stopping_;
  };
  absl::MutexLock lock(&mu_);
  while (true) {
    mu_.Await(absl::Condition(&has_work));
    if (tasks_.empty()) {
      return;
    }
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    busy_ = true;
    mu_.Unlock();
    task();
    mu_.Lock();
    busy_ = false;
  }
}

}  // namespace shardplane
