// What the coordinator tells those who watch.
#ifndef SHARDPLANE_COORDINATOR_BULLETIN_H_
#define SHARDPLANE_COORDINATOR_BULLETIN_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/change_log.h"
#include "coordinator/event_log.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

namespace shardplane {

// A ChangeLog and an EventLog with a lock, for writers and readers on any
// thread. Its lock is held before no other one.
class Bulletin {
 public:
  struct Options {
    std::function<absl::Time()> clock;
    Metrics* metrics = nullptr;  // outlives it; may be null
    const Log* log = nullptr;    // the same
  };
  explicit Bulletin(Options options) : options_(std::move(options)) {}

  // Shows a resource as it is now; nothing if it is shown so already.
  void Show(Shown shown);
  void Hide(absl::string_view name);
  // Shows `all` of a collection, and hides what else was shown of it.
  void ShowAll(absl::string_view collection, std::vector<Shown> all);
  // Something has happened: kept, shown, counted, logged.
  void Tell(EventSeverity severity, absl::string_view reason,
            std::string resource, std::string message);

  std::vector<EventRecord> Events() const;
  // As ChangeLog::Since.
  absl::Status Since(uint64_t version, const ChangeFilter& filter, size_t limit,
                     std::vector<Change>* changes, uint64_t* to) const;
  uint64_t version() const;
  // Returns when there is a later version, or at `deadline`.
  void Await(uint64_t version, absl::Time deadline) const;
  // Ends all waits, from now on.
  void Close();

 private:
  const Options options_;
  mutable absl::Mutex mu_;
  ChangeLog changes_ ABSL_GUARDED_BY(mu_);
  EventLog events_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_BULLETIN_H_
