// What has happened, for people: the last events, as pure state.
#ifndef SHARDPLANE_COORDINATOR_EVENT_LOG_H_
#define SHARDPLANE_COORDINATOR_EVENT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "coordinator/ids.h"

namespace shardplane {

enum class EventSeverity { kNormal = 1, kWarning };

struct EventRecord {
  EventId id;  // later ones sort behind
  absl::Time create_time;
  EventSeverity severity = EventSeverity::kNormal;
  std::string reason;    // WORKER_LOST, DEPLOYMENT_READY, ...
  std::string resource;  // "workers/w0"
  std::string message;   // one sentence
};

// Owned and guarded by its driver.
class EventLog {
 public:
  static constexpr size_t kDefaultKept = 1000;
  explicit EventLog(size_t kept = kDefaultKept) : kept_(kept) {}

  // Fills in the id. `forgotten`: the event that made room, if there was one.
  EventRecord Add(EventRecord event, std::optional<EventId>* forgotten);
  const std::deque<EventRecord>& List() const { return events_; }

 private:
  const size_t kept_;
  uint64_t next_ = 1;
  std::deque<EventRecord> events_;  // oldest first
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_EVENT_LOG_H_
