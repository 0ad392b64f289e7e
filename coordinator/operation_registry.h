// What lasts and can be followed: operations, as pure state.
#ifndef SHARDPLANE_COORDINATOR_OPERATION_REGISTRY_H_
#define SHARDPLANE_COORDINATOR_OPERATION_REGISTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/ids.h"

namespace shardplane {

enum class OperationKind { kMaterialize = 1 };
enum class OperationState { kRunning = 1, kSucceeded, kFailed, kCancelled };
std::string ToString(OperationKind kind);    // "materialize"
std::string ToString(OperationState state);  // "RUNNING"

struct OperationProgress {
  std::string phase;  // "placing parameters"
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  friend bool operator==(const OperationProgress&,
                         const OperationProgress&) = default;
};

struct OperationRecord {
  OperationId id;
  std::string uid;
  OperationKind kind = OperationKind::kMaterialize;
  DeploymentId deployment;  // that it is done to
  OperationState state = OperationState::kRunning;
  OperationProgress progress;
  absl::Time create_time;
  absl::Time update_time;
  std::optional<absl::Time> end_time;
  absl::Status error;  // kFailed: why
  uint64_t revision = 1;
};

// Owned and guarded by its driver. No clock, no lock.
//
//   Begin(d) -> RUNNING; Begin(d) -> FailedPrecondition, naming the first;
//   End(OK) -> SUCCEEDED; 24 h later Expire forgets it
class OperationRegistry {
 public:
  static constexpr absl::Duration kKept = absl::Hours(24);

  // FailedPrecondition, reason OPERATION_RUNNING: one of this kind is being
  // done to that deployment.
  absl::StatusOr<OperationRecord> Begin(OperationId id, std::string uid,
                                        OperationKind kind,
                                        const DeploymentId& deployment,
                                        absl::Time now);
  // Nothing once it has ended.
  void Progress(const OperationId& id, const OperationProgress& progress,
                absl::Time now);
  // It ends as `error` says; if it was to be cancelled, an error means that it
  // was.
  void End(const OperationId& id, const absl::Status& error, absl::Time now);
  // From now on an error means CANCELLED. False: it has ended. NotFound.
  absl::StatusOr<bool> Cancel(const OperationId& id);

  // NotFound.
  absl::StatusOr<OperationRecord> Find(const OperationId& id) const;
  std::vector<OperationRecord> List() const;  // in the order of ids
  // Forgets those that ended long ago; returns them.
  std::vector<OperationId> Expire(absl::Time now);

 private:
  struct Entry {
    OperationRecord record;
    bool cancelled = false;
  };
  absl::btree_map<OperationId, Entry> operations_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_OPERATION_REGISTRY_H_
