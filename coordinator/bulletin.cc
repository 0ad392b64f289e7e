#include "coordinator/bulletin.h"

#include <optional>
#include <utility>

#include "absl/container/btree_set.h"

namespace shardplane {

void Bulletin::Show(Shown shown) {
  absl::MutexLock lock(&mu_);
  changes_.Put(std::move(shown));
}

void Bulletin::Hide(absl::string_view name) {
  absl::MutexLock lock(&mu_);
  changes_.Remove(name);
}

void Bulletin::ShowAll(absl::string_view collection, std::vector<Shown> all) {
  absl::MutexLock lock(&mu_);
  absl::btree_set<std::string> names;
  for (Shown& shown : all) {
    names.insert(ResourceName(shown));
    changes_.Put(std::move(shown));
  }
  for (const std::string& name : changes_.Names(collection)) {
    if (names.count(name) == 0) changes_.Remove(name);
  }
}

void Bulletin::Tell(EventSeverity severity, absl::string_view reason,
                    std::string resource, std::string message) {
  if (options_.metrics != nullptr) {
    options_.metrics->Add(Counter::kEvents, {reason});
  }
  if (options_.log != nullptr) {
    options_.log->Write(
        severity == EventSeverity::kWarning ? LogLevel::kWarning
                                            : LogLevel::kInfo,
        message, {{"reason", std::string(reason)}, {"resource", resource}});
  }
  absl::MutexLock lock(&mu_);
  std::optional<EventId> forgotten;
  EventRecord event = events_.Add({.create_time = options_.clock(),
                                   .severity = severity,
                                   .reason = std::string(reason),
                                   .resource = std::move(resource),
                                   .message = std::move(message)},
                                  &forgotten);
  changes_.Put(std::move(event));
  if (forgotten.has_value()) changes_.Forget(ResourceName(*forgotten));
}

std::vector<EventRecord> Bulletin::Events() const {
  absl::MutexLock lock(&mu_);
  return {events_.List().begin(), events_.List().end()};
}

absl::Status Bulletin::Since(uint64_t version, const ChangeFilter& filter,
                             size_t limit, std::vector<Change>* changes,
                             uint64_t* to) const {
  absl::MutexLock lock(&mu_);
  return changes_.Since(version, filter, limit, changes, to);
}

uint64_t Bulletin::version() const {
  absl::MutexLock lock(&mu_);
  return changes_.version();
}

void Bulletin::Await(uint64_t version, absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  const auto later = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return closed_ || changes_.version() > version;
  };
  mu_.AwaitWithDeadline(absl::Condition(&later), deadline);
}

void Bulletin::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

}  // namespace shardplane
