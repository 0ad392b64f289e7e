#include "coordinator/watch_streams.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/operation_messages.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr size_t kTogether = 100;  // changes in one message, at most
// As much goes into one message; readers take 4 MiB by default.
constexpr size_t kMessageBytes = size_t{1} << 20;
// How often streams are looked at while nothing changes.
constexpr absl::Duration kLook = absl::Milliseconds(250);

absl::Status ShuttingDown() {
  return MakeError(
      absl::StatusCode::kUnavailable, "the coordinator shuts down",
      {.reason = "SHUTTING_DOWN", .metadata = {{"retry_ms", "1000"}}});
}

}  // namespace

std::shared_ptr<WatchStream> WatchStream::Start(const Bulletin* bulletin,
                                                const WatchOptions& options,
                                                ChangeFilter filter,
                                                uint64_t after,
                                                const absl::Status& refused) {
  const std::shared_ptr<WatchStream> stream(
      new WatchStream(bulletin, options, std::move(filter), after));
  stream->self_ = stream;
  if (refused.ok()) {
    stream->Advance();
  } else {
    stream->End(refused);
  }
  return stream;
}

void WatchStream::AddBookmark() {
  pb::WatchEvent& bookmark = *message_.add_events();
  bookmark.set_type(pb::WatchEvent::TYPE_BOOKMARK);
  bookmark.set_version(VersionText(options_.coordinator, after_));
}

void WatchStream::Fill() {
  message_.Clear();
  std::vector<Change> changes;
  uint64_t to = after_;
  status_ = bulletin_->Since(after_, filter_, kTogether, &changes, &to);
  if (!status_.ok()) {
    status_ =
        WithMetadata(status_, "oldest", VersionText(options_.coordinator, to));
    return;
  }
  bool all = changes.size() < kTogether;
  size_t bytes = 0;
  for (size_t i = 0; i < changes.size(); ++i) {
    if (bytes > kMessageBytes) {
      to = changes[i - 1].version;
      all = false;
      break;
    }
    pb::WatchEvent& event = *message_.add_events();
    event = ToProto(options_.coordinator, changes[i]);
    bytes += event.ByteSizeLong();
  }
  after_ = to;
  const bool quiet = absl::Now() - since_ >= options_.bookmark;
  if (all && (!caught_up_ || (changes.empty() && quiet))) {
    caught_up_ = true;
    AddBookmark();
  }
}

absl::Status WatchStream::TooSlow() const {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("watch: expected a reader that takes what it is sent "
                   "within ",
                   absl::FormatDuration(options_.slow),
                   ", got: one that has "
                   "not"),
      {.reason = "WATCH_TOO_SLOW",
       .metadata = {
           {"resume_version", VersionText(options_.coordinator, sent_)},
           {"remedy", "watch again from resume_version"}}});
}

WatchStream::Action WatchStream::Next() {
  if (finished_) return Action::kNothing;
  if (writing_ && status_.ok()) {
    if (absl::Now() - since_ < options_.slow) return Action::kNothing;
    status_ = TooSlow();
  }
  if (status_.ok()) Fill();
  if (!status_.ok()) {
    finished_ = true;
    return Action::kFinish;
  }
  if (message_.events().empty()) return Action::kNothing;
  writing_ = true;
  since_ = absl::Now();
  return Action::kWrite;
}

void WatchStream::Advance() {
  // gRPC may be done with the stream before this returns.
  const std::shared_ptr<WatchStream> alive = shared_from_this();
  {
    absl::MutexLock lock(&mu_);
    if (advancing_) return;
    advancing_ = true;
  }
  while (true) {
    Action action;
    absl::Status status;
    {
      absl::MutexLock lock(&mu_);
      action = Next();
      status = status_;
      if (action == Action::kNothing) {
        advancing_ = false;
        return;
      }
    }
    if (action == Action::kWrite) {
      StartWrite(&message_);
    } else {
      Finish(ToGrpcStatus(status));
    }
  }
}

void WatchStream::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    if (status_.ok()) status_ = status;
  }
  Advance();
}

void WatchStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    since_ = absl::Now();
    if (ok) {
      sent_ = after_;
    } else if (status_.ok()) {
      status_ = absl::CancelledError("the client went away");
    }
  }
  Advance();
}

void WatchStream::OnCancel() {
  End(absl::CancelledError("the client went away"));
}

void WatchStream::OnDone() {
  const std::shared_ptr<WatchStream> last = std::move(self_);
}

WatchStreams::WatchStreams(const Bulletin* bulletin, WatchOptions options)
    : bulletin_(bulletin), options_(options), waker_([this] { Wake(); }) {}

WatchStreams::~WatchStreams() {
  End();
  waker_.join();
}

WatchStream* WatchStreams::Start(const pb::WatchRequest& request) {
  absl::StatusOr<ChangeFilter> filter = FilterFromProto(request);
  const absl::StatusOr<uint64_t> after =
      ParseVersion(options_.coordinator, request.resume_version());
  absl::Status refused = filter.ok() ? after.status() : filter.status();
  absl::MutexLock lock(&mu_);
  if (ending_) refused = ShuttingDown();
  const std::shared_ptr<WatchStream> stream = WatchStream::Start(
      bulletin_, options_, filter.ok() ? *std::move(filter) : ChangeFilter(),
      after.ok() ? *after : 0, refused);
  streams_.push_back(stream);
  return stream.get();  // which owns itself
}

std::list<std::shared_ptr<WatchStream>> WatchStreams::Alive() {
  absl::MutexLock lock(&mu_);
  std::list<std::shared_ptr<WatchStream>> alive;
  for (auto it = streams_.begin(); it != streams_.end();) {
    if (std::shared_ptr<WatchStream> stream = it->lock()) {
      alive.push_back(std::move(stream));
      ++it;
    } else {
      it = streams_.erase(it);
    }
  }
  return alive;
}

void WatchStreams::Wake() {
  while (true) {
    const uint64_t seen = bulletin_->version();
    const std::list<std::shared_ptr<WatchStream>> alive = Alive();
    if (options_.metrics != nullptr) {
      options_.metrics->Set(Gauge::kWatchStreams, {},
                            static_cast<double>(alive.size()));
    }
    for (const std::shared_ptr<WatchStream>& stream : alive) {
      stream->Advance();
    }
    {
      absl::MutexLock lock(&mu_);
      if (ending_) return;
    }
    bulletin_->Await(seen, absl::Now() + kLook);
  }
}

void WatchStreams::End() {
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  for (const std::shared_ptr<WatchStream>& stream : Alive()) {
    stream->End(ShuttingDown());
  }
}

}  // namespace shardplane
