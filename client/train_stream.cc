#include "client/train_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/error_info.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

absl::Status AfterFinish() {
  return ClientError(absl::StatusCode::kFailedPrecondition, "STREAM_FINISHED",
                     "", "train: expected no step after Finish, got: another");
}

absl::Status Idle(absl::Duration limit, int64_t due) {
  return ClientError(
      absl::StatusCode::kDeadlineExceeded, "STREAM_IDLE", "",
      absl::StrCat("train: expected the next of ", due, " results within ",
                   absl::FormatDuration(limit), ", got: nothing"));
}

absl::Status EndedEarly(int64_t due) {
  return ClientError(absl::StatusCode::kInternal, "STREAM_INCOMPLETE", "",
                     absl::StrCat("train: expected ", due,
                                  " more results, got: the end of the stream"));
}

}  // namespace

enum class TrainStream::Event : intptr_t {
  kStarted = 1,
  kSent,
  kReceived,
  kFinished,
};

TrainStream::TrainStream(v1::ShardingCoordinator::Stub* stub,
                         const TrainStreamOptions& options)
    : options_(options), call_(stub->PrepareAsyncTrain(&context_, &queue_)) {
  call_->StartCall(reinterpret_cast<void*>(Event::kStarted));
  thread_ = std::thread([this] { Run(); });
}

TrainStream::~TrainStream() {
  context_.TryCancel();
  thread_.join();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

absl::Status TrainStream::Write(v1::StepRequest step) {
  {
    absl::MutexLock lock(&mu_);
    if (status_.has_value() && !status_->ok()) {
      return *status_;
    }
    if (finishing_ || status_.has_value()) {
      return AfterFinish();
    }
    collected_.push_back(std::move(step));
    ++due_;
    if (sending_ || broken_) {
      return absl::OkStatus();
    }
    sending_ = true;
  }
  Send();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::StepResult>> TrainStream::Read() {
  absl::MutexLock lock(&mu_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !results_.empty() || status_.has_value();
  };
  mu_.Await(absl::Condition(&ready));
  if (results_.empty()) {
    return status_->ok()
               ? absl::StatusOr<std::optional<v1::StepResult>>(std::nullopt)
               : *status_;
  }
  std::optional<v1::StepResult> result = std::move(results_.front());
  results_.pop_front();
  return result;
}

absl::Status TrainStream::Finish() {
  bool send = false;
  {
    absl::MutexLock lock(&mu_);
    send = !finishing_ && !sending_ && !broken_;
    finishing_ = true;
    sending_ = sending_ || send;
  }
  if (send) {
    Send();
  }
  absl::MutexLock lock(&mu_);
  const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return status_.has_value();
  };
  mu_.Await(absl::Condition(&ended));
  return *status_;
}

void TrainStream::Send() {
  sent_.Clear();
  {
    absl::MutexLock lock(&mu_);
    half_closed_ = collected_.empty();
    size_t bytes = 0;
    while (!collected_.empty()) {
      bytes += collected_.front().ByteSizeLong();
      if (sent_.steps_size() > 0 && bytes > options_.max_message_bytes) {
        break;
      }
      *sent_.add_steps() = std::move(collected_.front());
      collected_.pop_front();
    }
  }
  void* const tag = reinterpret_cast<void*>(Event::kSent);
  if (sent_.steps_size() == 0) {
    call_->WritesDone(tag);
  } else {
    call_->Write(sent_, tag);
  }
}

void TrainStream::Run() {
  for (bool finished = false; !finished || Sending();) {
    const std::optional<std::pair<Event, bool>> event = NextEvent();
    if (!event.has_value()) {
      OnIdle();
      continue;
    }
    const auto [kind, ok] = *event;
    switch (kind) {
      case Event::kStarted:
        call_->Read(&received_, reinterpret_cast<void*>(Event::kReceived));
        OnSent(ok);
        break;
      case Event::kSent:
        OnSent(ok);
        break;
      case Event::kReceived:
        OnReceived(ok);
        break;
      case Event::kFinished:
        OnFinished();
        finished = true;
        break;
    }
  }
}

std::optional<std::pair<TrainStream::Event, bool>> TrainStream::NextEvent() {
  void* tag = nullptr;
  bool ok = false;
  const auto next = queue_.AsyncNext(
      &tag, &ok, absl::ToChronoTime(absl::Now() + options_.idle_limit));
  if (next != grpc::CompletionQueue::GOT_EVENT) {
    return std::nullopt;
  }
  return std::pair(static_cast<Event>(reinterpret_cast<intptr_t>(tag)), ok);
}

bool TrainStream::Sending() {
  absl::MutexLock lock(&mu_);
  return sending_;
}

void TrainStream::OnSent(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    broken_ = broken_ || !ok;
    const bool more = !collected_.empty() || (finishing_ && !half_closed_);
    sending_ = more && !broken_;
    if (!sending_) {
      return;
    }
  }
  Send();
}

void TrainStream::OnReceived(bool ok) {
  if (!ok) {
    call_->Finish(&grpc_status_, reinterpret_cast<void*>(Event::kFinished));
    return;
  }
  {
    absl::MutexLock lock(&mu_);
    due_ -= received_.steps_size();
    for (v1::StepResult& step : *received_.mutable_steps()) {
      results_.push_back(std::move(step));
    }
  }
  call_->Read(&received_, reinterpret_cast<void*>(Event::kReceived));
}

void TrainStream::OnIdle() {
  {
    absl::MutexLock lock(&mu_);
    if (due_ <= 0 && !half_closed_) {
      return;
    }
    idle_ = true;
  }
  context_.TryCancel();
}

void TrainStream::OnFinished() {
  absl::MutexLock lock(&mu_);
  if (idle_) {
    status_ = Idle(options_.idle_limit, due_);
  } else if (grpc_status_.ok() && due_ > 0) {
    status_ = EndedEarly(due_);
  } else {
    status_ = FromGrpcStatus(grpc_status_);
  }
}

}  // namespace shardplane
