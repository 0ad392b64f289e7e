#include "coordinator/step_stream.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/step_wire.h"

namespace shardplane {
namespace {

// How steps fail that were under way when the stream ended by itself. What is
// no word of the worker's own is a connection that broke.
absl::Status BrokenStream(const absl::Status& status) {
  if (GetErrorInfo(status).has_value()) {
    return status;
  }
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return absl::UnavailableError(
          absl::StrCat("the stream of steps has ended: ", status.message()));
    default:
      return status;
  }
}

}  // namespace

void StreamCount::AwaitNone() {
  absl::MutexLock lock(&mu_);
  const auto none = [this]()
                        ABSL_NO_THREAD_SAFETY_ANALYSIS { return count_ == 0; };
  mu_.Await(absl::Condition(&none));
}

StepStream::~StepStream() = default;

void StepStream::Add(const GangRef& gang,
                     const std::shared_ptr<const TrainStep>& step,
                     uint64_t expected_hash, const CallOptions& options,
                     WorkerClient::Answer<StepOutcome> done) {
  const TrainStep::Encoding& encoding = step->Encoded(&EncodeStep);
  OutgoingStep out{.head = EncodeStepHead(gang, expected_hash, encoding),
                   .step = step};
  out.bytes = out.head.size() + encoding.bytes;
  auto pending = std::make_unique<Pending>();
  pending->number = step->run().step;
  pending->timeout = options.timeout;
  pending->done = std::move(done);
  pending->registration.Set(options.cancellation, [this] {
    End(absl::CancelledError("the step was cancelled"));
  });
  absl::Status refused;
  {
    absl::MutexLock lock(&mu_);
    if (!reason_.ok()) {
      refused = absl::CancelledError("the stream of steps was given up");
    } else if (ended_) {
      refused = absl::UnavailableError("the stream of steps has ended");
    } else {
      pending_.push_back(std::move(pending));
      outbox_.Add(std::move(out));
      if (pending_.size() == 1) {
        oldest_since_ = absl::Now();
        WatchOldest();
      }
    }
  }
  if (!refused.ok()) {
    pending->registration.Reset();
    pending->done(refused);
    return;
  }
  WriteOn();
}

bool StepStream::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_ || !reason_.ok();
}

void StepStream::WriteOn() {
  for (;;) {
    std::vector<OutgoingStep> message;
    {
      absl::MutexLock lock(&mu_);
      if (ended_) return;
      // Of those under way, what waits here has not been sent.
      message = outbox_.Take(pending_.size() - outbox_.size());
    }
    if (message.empty() || !Write(std::move(message))) return;
    absl::MutexLock lock(&mu_);
    outbox_.Sent();
  }
}

void StepStream::Written(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    outbox_.Sent();
  }
  if (ok) WriteOn();
  ReleaseIfOver();
}

void StepStream::Answered(const v1::StepsResponse& response) {
  bool expected = true;
  for (const v1::StepsResponse::Step& step : response.steps()) {
    expected = expected && Answer(step);
  }
  if (!expected) {
    End(
        absl::InternalError("expected the answer to the oldest step, got: "
                            "another"));
  }
  WriteOn();
}

void StepStream::ReadEnded() {
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
  }
  ReleaseIfOver();
}

bool StepStream::Answer(const v1::StepsResponse::Step& response) {
  std::unique_ptr<Pending> pending;
  {
    absl::MutexLock lock(&mu_);
    if (pending_.empty() || pending_.front()->number.value != response.step()) {
      return false;
    }
    pending = std::move(pending_.front());
    pending_.pop_front();
    oldest_since_ = absl::Now();
    WatchOldest();
  }
  // Not under the lock: a hook of the cancellation may wait for it.
  pending->registration.Reset();
  pending->done(OutcomeFromProto(response));
  return true;
}

void StepStream::ReleaseIfOver() {
  {
    absl::MutexLock lock(&mu_);
    if (released_ || !ended_ || outbox_.writing()) {
      return;
    }
    released_ = true;
  }
  NothingToWrite();
}

void StepStream::Over(const absl::Status& status) {
  std::deque<std::unique_ptr<Pending>> pending;
  absl::Status first;
  {
    absl::MutexLock lock(&mu_);
    pending.swap(pending_);
    first = reason_;
    alarm_.reset();
  }
  const absl::Status rest =
      first.ok() ? BrokenStream(status)
                 : absl::CancelledError("a step before it was given up");
  for (const std::unique_ptr<Pending>& step : pending) {
    step->registration.Reset();
    step->done(first.ok() ? rest : std::exchange(first, rest));
  }
}

void StepStream::End(absl::Status reason) {
  {
    absl::MutexLock lock(&mu_);
    if (reason_.ok()) {
      reason_ = std::move(reason);
    }
  }
  Cancel();
}

void StepStream::WatchOldest() {
  if (pending_.empty()) {
    return;
  }
  const absl::Time deadline = oldest_since_ + pending_.front()->timeout;
  if (alarm_at_ <= deadline) {
    return;  // it will look again
  }
  alarm_at_ = deadline;
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(deadline),
              [stream = weak_from_this()](bool expired) {
                const std::shared_ptr<StepStream> alive = stream.lock();
                if (expired && alive != nullptr) {
                  alive->OnAlarm();
                }
              });
}

void StepStream::OnAlarm() {
  {
    absl::MutexLock lock(&mu_);
    alarm_at_ = absl::InfiniteFuture();
    if (pending_.empty()) {
      return;
    }
    if (absl::Now() < oldest_since_ + pending_.front()->timeout) {
      WatchOldest();
      return;
    }
  }
  End(absl::DeadlineExceededError("the step took too long"));
}

}  // namespace shardplane
