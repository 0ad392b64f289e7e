#include "coordinator/action_queue.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"

namespace shardplane {

absl::StatusOr<ActionQueue::Turn> ActionQueue::Wait(
    Kind kind, absl::Time deadline, const std::function<bool()>& cancelled) {
  absl::MutexLock lock(&mu_);
  if (waiting_.size() >= kMaxWaiting) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("at most ", kMaxWaiting,
                     " calls may wait for one deployment, got: "
                     "one more"),
        {.reason = "QUEUE_FULL", .metadata = {{"retry_ms", "1000"}}});
  }
  const uint64_t ticket = next_ticket_++;
  waiting_.push_back(ticket);
  const auto my_turn = [this, ticket, kind]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return waiting_.front() == ticket && MayGo(kind);
  };
  const bool in_time =
      my_turn() || (deadline > absl::Now() &&
                    mu_.AwaitWithDeadline(absl::Condition(&my_turn), deadline));
  waiting_.erase(std::find(waiting_.begin(), waiting_.end(), ticket));
  if (!in_time) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     "another action of the deployment is still running",
                     {.reason = "DEPLOYMENT_BUSY"});
  }
  if (cancelled != nullptr && cancelled()) {
    return absl::CancelledError("the caller has gone");
  }
  alone_ = kind == Kind::kAlone;
  steps_ += kind == Kind::kStep ? 1 : 0;
  return Turn(this, kind);
}

void ActionQueue::Release(Kind kind) {
  absl::MutexLock lock(&mu_);
  alone_ = false;
  steps_ -= kind == Kind::kStep ? 1 : 0;
}

}  // namespace shardplane
