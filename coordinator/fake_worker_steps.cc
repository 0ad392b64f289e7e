// Steps: one after the other, on a thread of their own.
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/fake_worker.h"

namespace shardplane {

void FakeWorker::Step(const GangRef& gang,
                      const std::shared_ptr<const TrainStep>& step,
                      uint64_t expected_hash, const CallOptions& options,
                      Answer<StepOutcome> done) {
  absl::MutexLock lock(&mu_);
  last_request_id_ = gang.request_id;
  ++behaviours_[Method::kStep].calls;
  steps_.push_back({step, expected_hash, options, std::move(done), aborts_});
  if (!stepping_) {
    stepping_ = true;
    threads_.emplace_back([this] { WorkOnSteps(); });
  }
}

void FakeWorker::WorkOnSteps() {
  while (true) {
    QueuedStep queued;
    {
      absl::MutexLock lock(&mu_);
      if (steps_.empty()) {
        stepping_ = false;
        return;
      }
      queued = std::move(steps_.front());
      steps_.pop_front();
    }
    queued.done(RunStep(queued));
  }
}

absl::StatusOr<StepOutcome> FakeWorker::RunStep(const QueuedStep& queued) {
  SP_RETURN_IF_ERROR(
      AwaitRelease(Method::kStep, queued.options, queued.aborts));
  absl::MutexLock lock(&mu_);
  SP_RETURN_IF_ERROR(End(Method::kStep));
  RunCall run = queued.step->run();
  run.expected_hash = queued.expected_hash;
  if (run.step.value != committed_.value + 1 && !forgiving_) {
    return MakeError(absl::StatusCode::kAborted,
                     absl::StrCat("expected step ", committed_.value + 1,
                                  ", got: ", run.step.value),
                     {.reason = "STEP_OUT_OF_TURN"});
  }
  StepOutcome outcome{Outcome(run), 0.125};
  commits_.push_back(queued.step->commit());
  committed_ = run.step;
  return outcome;
}

}  // namespace shardplane
