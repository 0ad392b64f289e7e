#include "client/watch_stream.h"

#include <utility>

#include "absl/random/random.h"
#include "absl/time/clock.h"
#include "client/error_info.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr char kTooSlow[] = "WATCH_TOO_SLOW";

absl::Status Cancelled() {
  return ClientError(absl::StatusCode::kCancelled, "CANCELLED", "",
                     "watch: expected to go on, got: Cancel");
}

}  // namespace

WatchStream::WatchStream(pb::ShardingCoordinator::Stub* stub,
                         pb::WatchRequest request, WatchStreamOptions options)
    : stub_(stub), options_(std::move(options)), request_(std::move(request)) {}

WatchStream::~WatchStream() {
  Cancel();
  if (reader_ != nullptr) {
    reader_->Finish();
  }
}

void WatchStream::Cancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  if (context_ != nullptr) {
    context_->TryCancel();
  }
}

absl::Status WatchStream::Start() {
  absl::MutexLock lock(&mu_);
  if (cancelled_) {
    return Cancelled();
  }
  context_ = std::make_unique<grpc::ClientContext>();
  if (options_.until != absl::InfiniteFuture()) {
    context_->set_deadline(absl::ToChronoTime(options_.until));
  }
  reader_ = stub_->Watch(context_.get(), request_);
  return absl::OkStatus();
}

absl::Status WatchStream::Finish() {
  absl::Status status = FromGrpcStatus(reader_->Finish());
  reader_.reset();
  absl::MutexLock lock(&mu_);
  context_.reset();
  if (cancelled_) {
    return Cancelled();
  }
  if (status.ok()) {  // a watch has no end of its own
    return ClientError(absl::StatusCode::kUnavailable, "WATCH_ENDED", "",
                       "watch: expected more events, got: the end of the "
                       "stream");
  }
  return status;
}

absl::Status WatchStream::Receive() {
  if (reader_ == nullptr) {
    if (absl::Status status = Start(); !status.ok()) {
      return status;
    }
  }
  pb::WatchResponse response;
  if (!reader_->Read(&response)) {
    return Finish();
  }
  backoff_.reset();
  for (pb::WatchEvent& event : *response.mutable_events()) {
    events_.push_back(std::move(event));
  }
  return absl::OkStatus();
}

bool WatchStream::MayGoOn(const absl::Status& status) {
  const google::rpc::ErrorInfo info = ErrorInfoOf(status);
  if (absl::IsAborted(status) && info.reason() == kTooSlow) {
    const auto version = info.metadata().find("resume_version");
    if (version != info.metadata().end()) {
      request_.set_resume_version(version->second);
      resumes_ = true;
    }
    return true;
  }
  if (!backoff_.has_value()) {
    backoff_.emplace(options_.backoff, absl::Now());
  }
  thread_local absl::BitGen random;
  const std::optional<absl::Duration> wait = backoff_->Next(
      status, absl::Now(), absl::Uniform<double>(random, 0.0, 1.0));
  if (!wait.has_value()) {
    backoff_.reset();
    return false;
  }
  options_.sleep(*wait);
  return true;
}

absl::StatusOr<pb::WatchEvent> WatchStream::Next() {
  while (events_.empty()) {
    absl::Status status = Receive();
    if (!status.ok() && absl::IsOutOfRange(status)) {
      request_.clear_resume_version();
      resumes_ = false;
      return status;
    }
    if (!status.ok() && !MayGoOn(status)) {
      return status;
    }
  }
  pb::WatchEvent event = std::move(events_.front());
  events_.pop_front();
  // Before the bookmark, what there is has come in part.
  resumes_ |= event.type() == pb::WatchEvent::TYPE_BOOKMARK;
  if (resumes_ && !event.version().empty()) {
    request_.set_resume_version(event.version());
  }
  return event;
}

}  // namespace shardplane
