#include "coordinator/stream_watch.h"

#include <utility>

namespace shardplane {

StreamWatch::Stream::Stream(StreamWatch* watch, std::function<void()> cancel)
    : watch_(watch) {
  absl::MutexLock lock(&watch_->mu_);
  id_ = watch_->next_id_++;
  watch_->streams_[id_] = {.last = watch_->clock_(),
                           .cancel = std::move(cancel)};
}

StreamWatch::Stream::~Stream() {
  absl::MutexLock lock(&watch_->mu_);
  watch_->streams_.erase(id_);
}

void StreamWatch::Stream::Touch() {
  absl::MutexLock lock(&watch_->mu_);
  watch_->streams_[id_].last = watch_->clock_();
}

void StreamWatch::Stream::SetBusy(bool busy) {
  absl::MutexLock lock(&watch_->mu_);
  Entry& entry = watch_->streams_[id_];
  entry.busy = busy;
  entry.last = watch_->clock_();
}

void StreamWatch::Sweep() {
  // Under the lock: a stream that ends must not be cancelled afterwards.
  absl::MutexLock lock(&mu_);
  for (const auto& [unused, stream] : streams_) {
    if (!stream.busy && stream.last + idle_limit_ < clock_()) {
      stream.cancel();
    }
  }
}

}  // namespace shardplane
