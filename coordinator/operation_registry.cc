#include "coordinator/operation_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status NotThere(const OperationId& id) {
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("expected an operation that is there, got: ",
                                ResourceName(id)),
                   {.reason = "OPERATION_NOT_FOUND",
                    .metadata = {{"resource", ResourceName(id)}}});
}

absl::Status AlreadyRunning(const OperationRecord& record) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat(ResourceName(record.deployment),
                   ": expected no operation of kind ", ToString(record.kind),
                   " to run, got: ", ResourceName(record.id)),
      {.reason = "OPERATION_RUNNING",
       .metadata = {{"subject", ResourceName(record.deployment)},
                    {"operation", ResourceName(record.id)},
                    {"remedy", "wait for it with WaitOperation"}}});
}

}  // namespace

std::string ToString(OperationKind kind) {
  static constexpr const char* kNames[] = {"unspecified", "materialize"};
  return kNames[static_cast<int>(kind)];
}

std::string ToString(OperationState state) {
  static constexpr const char* kNames[] = {"UNSPECIFIED", "RUNNING",
                                           "SUCCEEDED", "FAILED", "CANCELLED"};
  return kNames[static_cast<int>(state)];
}

absl::StatusOr<OperationRecord> OperationRegistry::Begin(
    OperationId id, std::string uid, OperationKind kind,
    const DeploymentId& deployment, absl::Time now) {
  for (const auto& [unused, entry] : operations_) {
    const OperationRecord& other = entry.record;
    if (other.state == OperationState::kRunning && other.kind == kind &&
        other.deployment == deployment) {
      return AlreadyRunning(other);
    }
  }
  OperationRecord record{.id = id,
                         .uid = std::move(uid),
                         .kind = kind,
                         .deployment = deployment,
                         .create_time = now,
                         .update_time = now};
  return operations_.insert_or_assign(std::move(id), Entry{std::move(record)})
      .first->second.record;
}

void OperationRegistry::Progress(const OperationId& id,
                                 const OperationProgress& progress,
                                 absl::Time now) {
  const auto it = operations_.find(id);
  if (it == operations_.end()) return;
  OperationRecord& record = it->second.record;
  if (record.state != OperationState::kRunning || record.progress == progress) {
    return;
  }
  record.progress = progress;
  record.update_time = now;
  ++record.revision;
}

void OperationRegistry::End(const OperationId& id, const absl::Status& error,
                            absl::Time now) {
  const auto it = operations_.find(id);
  if (it == operations_.end()) return;
  OperationRecord& record = it->second.record;
  if (record.state != OperationState::kRunning) return;
  record.state = error.ok()             ? OperationState::kSucceeded
                 : it->second.cancelled ? OperationState::kCancelled
                                        : OperationState::kFailed;
  record.error = error;
  if (error.ok()) record.progress.bytes_done = record.progress.bytes_total;
  record.update_time = now;
  record.end_time = now;
  ++record.revision;
}

absl::StatusOr<bool> OperationRegistry::Cancel(const OperationId& id) {
  const auto it = operations_.find(id);
  if (it == operations_.end()) return NotThere(id);
  if (it->second.record.state != OperationState::kRunning) return false;
  it->second.cancelled = true;
  return true;
}

absl::StatusOr<OperationRecord> OperationRegistry::Find(
    const OperationId& id) const {
  const auto it = operations_.find(id);
  if (it == operations_.end()) return NotThere(id);
  return it->second.record;
}

std::vector<OperationRecord> OperationRegistry::List() const {
  std::vector<OperationRecord> list;
  for (const auto& [unused, entry] : operations_) list.push_back(entry.record);
  return list;
}

std::vector<OperationId> OperationRegistry::Expire(absl::Time now) {
  std::vector<OperationId> forgotten;
  for (auto it = operations_.begin(); it != operations_.end();) {
    const std::optional<absl::Time>& end = it->second.record.end_time;
    if (!end.has_value() || *end + kKept >= now) {
      ++it;
      continue;
    }
    forgotten.push_back(it->first);
    it = operations_.erase(it);
  }
  return forgotten;
}

}  // namespace shardplane
