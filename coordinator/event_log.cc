#include "coordinator/event_log.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace shardplane {

EventRecord EventLog::Add(EventRecord event,
                          std::optional<EventId>* forgotten) {
  // As many digits as the largest has, so that ids sort as numbers do.
  event.id = EventId{absl::StrFormat("%020d", next_++)};
  forgotten->reset();
  if (events_.size() == kept_) {
    *forgotten = events_.front().id;
    events_.pop_front();
  }
  events_.push_back(std::move(event));
  return events_.back();
}

}  // namespace shardplane
