#include "coordinator/action_queue.h"

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

absl::StatusOr<ActionQueue::Turn> ActionQueue::Wait(
    absl::Time deadline, const std::function<bool()>& cancelled) {
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
  waiting_.insert(ticket);
  const auto my_turn = [this, ticket]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return !busy_ && *waiting_.begin() == ticket;
  };
  const bool in_time =
      mu_.AwaitWithDeadline(absl::Condition(&my_turn), deadline);
  waiting_.erase(ticket);
  if (!in_time) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     "another action of the deployment is still running",
                     {.reason = "DEPLOYMENT_BUSY"});
  }
  if (cancelled != nullptr && cancelled()) {
    return absl::CancelledError("the caller has gone");
  }
  busy_ = true;
  return Turn(this);
}

void ActionQueue::Release() {
  absl::MutexLock lock(&mu_);
  busy_ = false;
}

}  // namespace shardplane
