// What has changed, in an order from any point of which a watch can go on.
#ifndef SHARDPLANE_COORDINATOR_CHANGE_LOG_H_
#define SHARDPLANE_COORDINATOR_CHANGE_LOG_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "coordinator/deployment.h"
#include "coordinator/event_log.h"
#include "coordinator/ids.h"
#include "coordinator/module_registry.h"
#include "coordinator/operation_registry.h"
#include "coordinator/worker_registry.h"

namespace shardplane {

// What is shown of a resource: without what a List leaves out, which may be
// large (reports, module trees).
using Shown = std::variant<WorkerRecord, ModuleRecord, DeploymentInfo,
                           OperationRecord, EventRecord>;
std::string ResourceName(const Shown& shown);
// Changes with everything that is shown.
std::string EtagOf(const Shown& shown);
// Without reports and module trees.
Shown WithoutBody(Shown shown);

enum class ChangeType { kAdded = 1, kModified, kDeleted };

struct Change {
  ChangeType type = ChangeType::kAdded;
  uint64_t version = 0;
  std::shared_ptr<const Shown> shown;  // shared with the log; immutable
};

// Which changes a watch wants.
struct ChangeFilter {
  // "workers", "modules", "deployments", "operations", "events"; empty: all.
  absl::btree_set<std::string> collections;
  std::string name;  // of this resource alone; "": of all
};

// Of each resource the last change, and of those that are gone the last
// kKeptDeletions. So it needs memory for what there is and not for what was,
// and a reader that falls behind misses states that were over by then, never
// the last one. Owned and guarded by its driver.
//
//   Put(w0) -> 1; Put(d1) -> 2; Put(w0) -> 3; Remove(d1) -> 4
//   Since(0): ADDED w0 (3).   Since(2): MODIFIED w0 (3), DELETED d1 (4)
class ChangeLog {
 public:
  static constexpr size_t kKeptDeletions = 1024;
  explicit ChangeLog(size_t kept_deletions = kKeptDeletions)
      : kept_deletions_(kept_deletions) {}

  // True unless it is shown already, as its etag says.
  bool Put(Shown shown);
  // False: it is not there.
  bool Remove(absl::string_view name);
  // Forgets it as if it had never been; for events, which nobody misses.
  void Forget(absl::string_view name);
  // Names that are shown in `collection`.
  std::vector<std::string> Names(absl::string_view collection) const;

  uint64_t version() const { return version_; }
  // At most `limit` changes after `version`, 0 being the beginning, in their
  // order; `to`: all up to there has been looked at. OutOfRange: deletions
  // after `version` have been forgotten; `to` is the oldest that would do.
  absl::Status Since(uint64_t version, const ChangeFilter& filter, size_t limit,
                     std::vector<Change>* changes, uint64_t* to) const;

 private:
  struct Entry {
    uint64_t created = 0;
    uint64_t version = 0;
    std::string etag;
    bool deleted = false;
    std::shared_ptr<const Shown> shown;
  };
  void Move(const std::string& name, Entry& entry);

  const size_t kept_deletions_;
  uint64_t version_ = 0;
  uint64_t oldest_ = 0;  // deletions up to here have been forgotten
  size_t deletions_ = 0;
  absl::btree_map<std::string, Entry> entries_;
  absl::btree_map<uint64_t, std::string> order_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_CHANGE_LOG_H_
