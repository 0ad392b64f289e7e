#include "worker/step_profiler.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

absl::Status Closed() {
  return absl::UnavailableError("expected a worker that goes on, got: its end");
}

}  // namespace

StepProfiler::StepProfiler(std::unique_ptr<Profiler> profiler)
    : profiler_(std::move(profiler)) {}

absl::StatusOr<std::string> StepProfiler::Profile(int steps,
                                                  absl::Duration timeout) {
  if (steps < 1 || steps > kMaxSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps: expected 1 to ", kMaxSteps, ", got: ", steps));
  }
  const auto request = std::make_shared<Request>();
  request->left = steps;
  absl::MutexLock lock(&mutex_);
  if (closed_) return Closed();
  if (request_ != nullptr) {
    return absl::ResourceExhaustedError(
        "expected no other profile under way, got: one");
  }
  request_ = request;
  const auto over = [&request] { return request->trace.has_value(); };
  if (mutex_.AwaitWithTimeout(absl::Condition(&over), timeout)) {
    return *std::move(request->trace);
  }
  const int taken = steps - request->left;
  if (request->begun) {
    request->left = 1;  // ends with the step that goes on, or the next
  } else {
    request_.reset();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("expected ", steps, " training steps within ",
                   absl::FormatDuration(timeout), ", got: ", taken));
}

void StepProfiler::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  if (request_ == nullptr) return;
  request_->trace = Closed();
  request_.reset();
}

void StepProfiler::StepBegins() {
  absl::MutexLock lock(&mutex_);
  if (request_ == nullptr || request_->begun) return;
  request_->begun = true;
  if (absl::Status status = profiler_->Begin(); !status.ok()) {
    request_->trace = std::move(status);
    request_.reset();
  }
}

void StepProfiler::StepEnds() {
  absl::MutexLock lock(&mutex_);
  if (request_ == nullptr || !request_->begun || --request_->left > 0) return;
  request_->trace = profiler_->End();
  request_.reset();
}

}  // namespace shardplane
