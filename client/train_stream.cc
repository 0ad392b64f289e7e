#include "client/train_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/error_info.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

// A deadline that has passed. (gRPC takes times before 1970 for "never".)
constexpr absl::Time kAtOnce = absl::UnixEpoch();

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
  {
    absl::MutexLock lock(&mu_);
    DriveOnce(kAtOnce);
    driving_ = false;
  }
  helper_ = std::thread([this] { Help(); });
}

TrainStream::~TrainStream() {
  context_.TryCancel();
  {
    absl::MutexLock lock(&mu_);
    DriveUntil([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return status_.has_value() && !sending_;
    });
    closing_ = true;
  }
  helper_.join();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

absl::Status TrainStream::Write(v1::StepRequest step) {
  absl::MutexLock lock(&mu_);
  if (status_.has_value() && !status_->ok()) {
    return *status_;
  }
  if (finishing_ || status_.has_value()) {
    return AfterFinish();
  }
  collected_.push_back(std::move(step));
  ++due_;
  if (!driving_) {
    // Answers that have come let steps leave.
    driving_ = true;
    while (DriveOnce(kAtOnce)) {
    }
    driving_ = false;
  } else {
    SendIfDue();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::StepResult>> TrainStream::Read() {
  absl::MutexLock lock(&mu_);
  DriveUntil([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !results_.empty() || status_.has_value();
  });
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
  absl::MutexLock lock(&mu_);
  finishing_ = true;
  DriveUntil([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return status_.has_value();
  });
  return *status_;
}

void TrainStream::DriveUntil(absl::FunctionRef<bool()> done) {
  const auto free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return done() || !driving_;
  };
  while (!done()) {
    if (driving_) {
      mu_.Await(absl::Condition(&free));
      continue;
    }
    driving_ = true;
    if (!DriveOnce(absl::Now() + options_.idle_limit)) {
      OnIdle();
    }
    driving_ = false;
  }
}

bool TrainStream::DriveOnce(absl::Time deadline) {
  SendIfDue();
  mu_.Unlock();
  void* tag = nullptr;
  bool ok = false;
  const bool got = queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(deadline)) ==
                   grpc::CompletionQueue::GOT_EVENT;
  if (got) {
    Handle(static_cast<Event>(reinterpret_cast<intptr_t>(tag)), ok);
  }
  mu_.Lock();
  return got;
}

void TrainStream::Help() {
  absl::MutexLock lock(&mu_);
  const auto needed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closing_ || (sending_ && !driving_);
  };
  while (true) {
    mu_.Await(absl::Condition(&needed));
    if (closing_) {
      return;
    }
    DriveUntil([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !sending_ && !IsDue();
    });
  }
}

void TrainStream::Handle(Event event, bool ok) {
  switch (event) {
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
      break;
  }
}

bool TrainStream::IsDue() const {
  if (sending_ || broken_) {
    return false;
  }
  if (finishing_) {
    return !collected_.empty() || !half_closed_;
  }
  const int64_t collected = static_cast<int64_t>(collected_.size());
  const int64_t under_way = due_ - collected;
  return collected > 0 && collected >= under_way;
}

void TrainStream::SendIfDue() {
  if (!IsDue()) {
    return;
  }
  sending_ = true;
  half_closed_ = collected_.empty();
  sent_.Clear();
  size_t bytes = 0;
  while (!collected_.empty()) {
    bytes += collected_.front().ByteSizeLong();
    if (sent_.steps_size() > 0 && bytes > options_.max_message_bytes) {
      break;
    }
    *sent_.add_steps() = std::move(collected_.front());
    collected_.pop_front();
  }
  mu_.Unlock();
  void* const tag = reinterpret_cast<void*>(Event::kSent);
  if (sent_.steps_size() == 0) {
    call_->WritesDone(tag);
  } else {
    call_->Write(sent_, tag);
  }
  mu_.Lock();
}

void TrainStream::OnSent(bool ok) {
  absl::MutexLock lock(&mu_);
  broken_ = broken_ || !ok;
  sending_ = false;
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
  if (due_ <= 0 && !half_closed_) {
    return;
  }
  idle_ = true;
  mu_.Unlock();
  context_.TryCancel();
  mu_.Lock();
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
