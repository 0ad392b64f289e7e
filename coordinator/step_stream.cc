#include "coordinator/step_stream.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/step_wire.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

// A slice of bytes that belong to `step`.
grpc::Slice SharedSlice(std::shared_ptr<const TrainStep> step) {
  const std::string& bytes = step->Encoded(&EncodeStep).bytes;
  auto* const owner = new std::shared_ptr<const TrainStep>(std::move(step));
  return grpc::Slice(
      const_cast<char*>(bytes.data()), bytes.size(),
      [](void* held) {
        delete static_cast<std::shared_ptr<const TrainStep>*>(held);
      },
      owner);
}

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

void StepOutbox::Add(grpc::Slice head, grpc::Slice shared) {
  steps_.push_back({std::move(head), std::move(shared)});
}

bool StepOutbox::Take(size_t unanswered, grpc::ByteBuffer* message) {
  if (writing_ || (unanswered >= kEnoughToDo && steps_.size() < kTogether)) {
    return false;
  }
  std::vector<grpc::Slice> slices;
  size_t size = 0;
  while (!steps_.empty() &&
         (size == 0 || size + steps_.front().size() <= kMaxMessageBytes)) {
    size += steps_.front().size();
    slices.push_back(std::move(steps_.front().head));
    slices.push_back(std::move(steps_.front().shared));
    steps_.pop_front();
  }
  writing_ = !slices.empty();
  if (writing_) {
    *message = grpc::ByteBuffer(slices.data(), slices.size());
  }
  return writing_;
}

void StreamCount::AwaitNone() {
  absl::MutexLock lock(&mu_);
  const auto none = [this]()
                        ABSL_NO_THREAD_SAFETY_ANALYSIS { return count_ == 0; };
  mu_.Await(absl::Condition(&none));
}

std::shared_ptr<StepStream> StepStream::Open(
    const std::shared_ptr<grpc::Channel>& channel,
    std::shared_ptr<StreamCount> count) {
  const std::shared_ptr<StepStream> stream(new StepStream(std::move(count)));
  stream->self_ = stream;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, v1::StepsResponse> stub(channel);
  stub.PrepareBidiStreamingCall(
      &stream->context_, "/shardplane.v1.Worker/Steps", {}, stream.get());
  stream->AddHold();
  stream->StartRead(&stream->response_);
  stream->StartCall();
  return stream;
}

StepStream::~StepStream() = default;

void StepStream::Add(const GangRef& gang,
                     const std::shared_ptr<const TrainStep>& step,
                     uint64_t expected_hash, const CallOptions& options,
                     WorkerClient::Answer<StepOutcome> done) {
  grpc::Slice head(
      EncodeStepHead(gang, expected_hash, step->Encoded(&EncodeStep)));
  auto pending = std::make_unique<Pending>();
  pending->number = step->run().step;
  pending->timeout = options.timeout;
  pending->done = std::move(done);
  pending->registration.Set(options.cancellation, [this] {
    End(absl::CancelledError("the step was cancelled"));
  });
  bool write = false;
  absl::Status refused;
  {
    absl::MutexLock lock(&mu_);
    if (!reason_.ok()) {
      refused = absl::CancelledError("the stream of steps was given up");
    } else if (ended_) {
      refused = absl::UnavailableError("the stream of steps has ended");
    } else {
      pending_.push_back(std::move(pending));
      outbox_.Add(std::move(head), SharedSlice(step));
      if (pending_.size() == 1) {
        oldest_since_ = absl::Now();
        WatchOldest();
      }
      write = TakeMessage();
    }
  }
  if (write) {
    StartWrite(&message_);
  }
  if (!refused.ok()) {
    pending->registration.Reset();
    pending->done(refused);
  }
}

void StepStream::Close() { End(absl::CancelledError("the gang was left")); }

bool StepStream::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_ || !reason_.ok();
}

void StepStream::OnWriteDone(bool ok) {
  bool write = false;
  {
    absl::MutexLock lock(&mu_);
    outbox_.Sent();
    write = ok && TakeMessage();
  }
  if (write) {
    StartWrite(&message_);
  } else {
    ReleaseIfOver();
  }
}

bool StepStream::TakeMessage() {
  // Of those under way, what waits here has not been sent.
  return !ended_ && outbox_.Take(pending_.size() - outbox_.size(), &message_);
}

void StepStream::OnReadDone(bool ok) {
  if (!ok) {
    {
      absl::MutexLock lock(&mu_);
      ended_ = true;
    }
    ReleaseIfOver();
    return;
  }
  bool expected = true;
  for (const v1::StepsResponse::Step& step : response_.steps()) {
    expected = expected && Answer(step);
  }
  if (!expected) {
    End(
        absl::InternalError("expected the answer to the oldest step, got: "
                            "another"));
  }
  bool write = false;
  {
    absl::MutexLock lock(&mu_);
    write = TakeMessage();
  }
  if (write) {
    StartWrite(&message_);
  }
  StartRead(&response_);  // fails where the call was cancelled
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
    if (!held_ || !ended_ || outbox_.writing()) {
      return;
    }
    held_ = false;
  }
  RemoveHold();
}

void StepStream::OnDone(const grpc::Status& status) {
  const std::shared_ptr<StepStream> self = std::move(self_);
  std::deque<std::unique_ptr<Pending>> pending;
  absl::Status first;
  {
    absl::MutexLock lock(&mu_);
    pending.swap(pending_);
    first = reason_;
    alarm_.reset();
  }
  const absl::Status rest =
      first.ok() ? BrokenStream(FromGrpcStatus(status))
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
  context_.TryCancel();
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
