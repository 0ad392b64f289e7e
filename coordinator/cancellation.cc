#include "coordinator/cancellation.h"

#include <utility>

namespace shardplane {

void Cancellation::Cancel() {
  // Under the lock, so that a hook never runs after its Reset: the objects
  // that it touches may be gone by then.
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  for (const auto& [unused, hook] : hooks_) {
    hook();
  }
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

void Cancellation::Registration::Set(Cancellation* cancellation,
                                     std::function<void()> hook) {
  Reset();
  if (cancellation == nullptr) {
    return;
  }
  cancellation_ = cancellation;
  absl::MutexLock lock(&cancellation->mu_);
  if (cancellation->cancelled_) {
    hook();
  }
  id_ = cancellation->next_id_++;
  cancellation->hooks_.emplace(id_, std::move(hook));
}

void Cancellation::Registration::Reset() {
  if (cancellation_ != nullptr) {
    absl::MutexLock lock(&cancellation_->mu_);
    cancellation_->hooks_.erase(id_);
  }
  cancellation_ = nullptr;
}

}  // namespace shardplane
