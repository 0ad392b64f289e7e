#include "worker/steps_stream.h"

#include <utility>

#include "absl/time/clock.h"
#include "proto/convert/field_path.h"
#include "proto/grpc_status.h"
#include "worker/worker_convert.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

bool AnswersLeave(uint64_t first, uint64_t last, int under_way,
                  absl::Duration since_last) {
  constexpr int kTogether = 16;
  constexpr absl::Duration kSoon = absl::Milliseconds(20);
  return under_way == 0 || last / kTogether > (first - 1) / kTogether ||
         since_last >= kSoon;
}

void StepsStream::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (!ended_) status_ = status;
    ended_ = true;
  }
  Advance();
}

bool StepsStream::Take(pb::StepsRequest::Step step) {
  const uint64_t number = step.run().step();
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return false;
    if (number == 0) {
      ended_ = true;
      status_ = MissingField("steps.run.step");
      return false;
    }
    ++open_;
  }
  GangCall call = ToGangCall(step.run().gang());
  worker_->Step(
      std::move(call), ToGangStep(std::move(step)),
      [self = shared_from_this(), number](absl::StatusOr<StepOutcome> outcome) {
        self->Answer(ToAnswer(number, std::move(outcome)));
      });
  return true;
}

void StepsStream::ReadDone(bool ok) {
  if (ok) {
    for (pb::StepsRequest::Step& step : *request_.mutable_steps()) {
      if (!Take(std::move(step))) break;
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    ended_ = ended_ || !ok;
  }
  Advance();
}

void StepsStream::Answer(pb::StepsResponse::Step answer) {
  {
    absl::MutexLock lock(&mutex_);
    if (dead_) {
      --open_;
    } else {
      *collected_.add_steps() = std::move(answer);
    }
  }
  Advance();
}

void StepsStream::WriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    open_ -= response_.steps_size();
    if (!ok) {
      dead_ = true;
      ended_ = true;
      open_ -= collected_.steps_size();
      collected_.Clear();
    }
  }
  Advance();
}

bool StepsStream::HasToWrite() const {
  const int ready = collected_.steps_size();
  return !writing_ && ready > 0 &&
         AnswersLeave(collected_.steps(0).step(),
                      collected_.steps(ready - 1).step(), open_ - ready,
                      absl::Now() - last_left_);
}

StepsStream::Action StepsStream::Next() {
  absl::MutexLock lock(&mutex_);
  if (HasToWrite()) {
    writing_ = true;
    last_left_ = absl::Now();
    response_.Swap(&collected_);
    collected_.Clear();
    return Action::kWrite;
  }
  if (!reading_ && !ended_ && open_ < kMaxOpen) {
    reading_ = true;
    return Action::kRead;
  }
  if (ended_ && open_ == 0 && !finished_) {
    finished_ = true;
    return Action::kFinish;
  }
  advancing_ = false;
  return Action::kNothing;
}

void StepsStream::Advance() {
  // The carrier may be done with the stream before this returns.
  const std::shared_ptr<StepsStream> alive = shared_from_this();
  {
    absl::MutexLock lock(&mutex_);
    if (advancing_) return;
    advancing_ = true;
  }
  for (Action action = Next(); action != Action::kNothing; action = Next()) {
    Do(action);
  }
}

void StepsStream::Do(Action action) {
  switch (action) {
    case Action::kNothing:
      return;
    case Action::kRead:
      Read(&request_);
      return;
    case Action::kWrite:
      Write(&response_);
      return;
    case Action::kFinish: {
      absl::Status status;
      {
        absl::MutexLock lock(&mutex_);
        status = status_;
      }
      Finish(status);
      return;
    }
  }
}

std::shared_ptr<GrpcStepsStream> GrpcStepsStream::Start(GangWorker* worker) {
  const std::shared_ptr<GrpcStepsStream> stream(new GrpcStepsStream(worker));
  stream->self_ = stream;
  stream->Begin();
  return stream;
}

void GrpcStepsStream::Finish(const absl::Status& status) {
  grpc::ServerBidiReactor<v1::StepsRequest, v1::StepsResponse>::Finish(
      ToGrpcStatus(status));
}

void GrpcStepsStream::OnDone() {
  const std::shared_ptr<StepsStream> last = std::move(self_);
}

}  // namespace shardplane
