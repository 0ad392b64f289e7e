#include "coordinator/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// How long workers that are gone are still shown.
constexpr absl::Duration kRemembered = absl::Hours(1);
constexpr size_t kMaxFencedPerName = 16;

bool IsLeased(WorkerState state) {
  return state == WorkerState::kRegistering || state == WorkerState::kReady ||
         state == WorkerState::kDraining;
}

void Enter(WorkerRecord& worker, WorkerState state, std::string reason,
           absl::Time now) {
  worker.state = state;
  worker.state_reason = std::move(reason);
  worker.state_time = now;
}

absl::Status FencedError(const WorkerId& id, Incarnation incarnation) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("worker ", id.value, " was taken over by a newer ",
                   "incarnation; got: incarnation ", incarnation.value),
      {.reason = "WORKER_FENCED",
       .metadata = {{"resource", ResourceName(id)},
                    {"incarnation", absl::StrCat(incarnation.value)}}});
}

absl::Status UnknownWorker(const WorkerId& id, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat("worker ", id.value, " ", why, "; expected: register again"),
      {.reason = "WORKER_NOT_FOUND",
       .metadata = {{"resource", ResourceName(id)},
                    {"remedy", "register again"}}});
}

absl::Status CheckIntroduction(const WorkerIntroduction& introduction) {
  if (!IsWorkerId(introduction.id.value)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("worker_id: expected 1 to 253 letters, digits, '-', '.' "
                     "and '_', got: \"",
                     introduction.id.value, "\""),
        {.reason = "WORKER_ID_INVALID", .metadata = {{"field", "worker_id"}}});
  }
  if (introduction.incarnation.value == 0 || introduction.address.empty()) {
    const std::string field =
        introduction.address.empty() ? "address" : "incarnation";
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat(field, ": is required, got: nothing"),
        {.reason = "FIELD_MISSING", .metadata = {{"field", field}}});
  }
  return absl::OkStatus();
}

}  // namespace

std::string ToString(WorkerState state) {
  static constexpr const char* kNames[] = {
      "UNSPECIFIED", "REGISTERING", "READY",  "DRAINING",
      "LOST",        "FENCED",      "RETIRED"};
  return kNames[static_cast<int>(state)];
}

absl::StatusOr<std::vector<Departure>> WorkerRegistry::Register(
    const WorkerIntroduction& introduction, absl::Time now) {
  SP_RETURN_IF_ERROR(CheckIntroduction(introduction));
  const WorkerId& id = introduction.id;
  if (IsFenced(id, introduction.incarnation)) {
    return FencedError(id, introduction.incarnation);
  }
  WorkerRecord& worker = workers_[id];
  std::vector<Departure> departures;
  const bool known = worker.incarnation == introduction.incarnation;
  if (!known && worker.incarnation.value != 0) {
    Fence(worker);
    if (IsLeased(worker.state)) {
      departures =
          End(worker, WorkerState::kFenced,
              absl::StrCat("a new incarnation ", introduction.incarnation.value,
                           " has registered under its name"),
              now);
    }
  }
  if (!known || !IsLeased(worker.state)) {
    worker = WorkerRecord{.id = id, .incarnation = introduction.incarnation};
    Enter(worker, WorkerState::kRegistering, "it has introduced itself", now);
  }
  worker.address = introduction.address;
  worker.http_address = introduction.http_address;
  worker.device = introduction.device;
  worker.lease_end = now + lease_;
  return departures;
}

void WorkerRegistry::MarkReady(const WorkerId& id, Incarnation incarnation,
                               absl::Time now) {
  const auto it = workers_.find(id);
  if (it != workers_.end() && it->second.incarnation == incarnation &&
      it->second.state == WorkerState::kRegistering) {
    Enter(it->second, WorkerState::kReady, "it has registered", now);
  }
}

absl::StatusOr<std::vector<Departure>> WorkerRegistry::Renew(
    const WorkerId& id, Incarnation incarnation, LeaseRequest request,
    absl::Time now) {
  if (IsFenced(id, incarnation)) {
    return FencedError(id, incarnation);
  }
  const auto it = workers_.find(id);
  if (it == workers_.end() || it->second.incarnation != incarnation) {
    return UnknownWorker(id, "is not known");
  }
  WorkerRecord& worker = it->second;
  if (!IsLeased(worker.state)) {
    return UnknownWorker(id, absl::StrCat("is ", ToString(worker.state)));
  }
  worker.lease_end = now + lease_;
  if (request == LeaseRequest::kRetire) {
    return End(worker, WorkerState::kRetired, "it has shut down", now);
  }
  if (request == LeaseRequest::kDrain &&
      worker.state != WorkerState::kDraining) {
    Enter(worker, WorkerState::kDraining, "it was told to stop", now);
  }
  return std::vector<Departure>();
}

std::vector<Departure> WorkerRegistry::Expire(absl::Time now) {
  std::vector<Departure> departures;
  for (auto it = workers_.begin(); it != workers_.end();) {
    WorkerRecord& worker = it->second;
    if (IsLeased(worker.state) && worker.lease_end < now) {
      const std::vector<Departure> ended =
          End(worker, WorkerState::kLost,
              absl::StrCat("its lease of ", absl::FormatDuration(lease_),
                           " ran out"),
              now);
      departures.insert(departures.end(), ended.begin(), ended.end());
    }
    const bool forget =
        !IsLeased(worker.state) && worker.state_time + kRemembered < now;
    it = forget ? workers_.erase(it) : std::next(it);
  }
  return departures;
}

std::vector<Departure> WorkerRegistry::MarkLost(const WorkerId& id,
                                                Incarnation incarnation,
                                                const std::string& reason,
                                                absl::Time now) {
  const auto it = workers_.find(id);
  if (it == workers_.end() || it->second.incarnation != incarnation ||
      !IsLeased(it->second.state)) {
    return {};
  }
  return End(it->second, WorkerState::kLost, reason, now);
}

absl::StatusOr<bool> WorkerRegistry::SetDraining(const WorkerId& id,
                                                 bool draining,
                                                 absl::Time now) {
  WorkerRecord& worker = workers_.at(id);
  if (worker.state != WorkerState::kReady &&
      worker.state != WorkerState::kDraining) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(ResourceName(id),
                     ": expected a worker that is READY or DRAINING, got: ",
                     ToString(worker.state), ", ", worker.state_reason),
        {.reason = "WORKER_NOT_THERE",
         .metadata = {{"subject", ResourceName(id)}}});
  }
  const WorkerState state =
      draining ? WorkerState::kDraining : WorkerState::kReady;
  if (worker.state == state) return false;
  Enter(worker, state,
        draining ? "an operator drains it: no further gang gets it"
                 : "an operator gave it back: gangs may have it",
        now);
  return true;
}

absl::StatusOr<std::vector<WorkerRecord>> WorkerRegistry::Assign(
    int count, const DeploymentId& id, GangEpoch epoch) {
  std::vector<WorkerRecord*> free;
  int ready = 0;
  for (auto& [unused, worker] : workers_) {
    if (worker.state != WorkerState::kReady) {
      continue;
    }
    ++ready;
    if (!worker.seat.has_value()) {
      free.push_back(&worker);
    }
  }
  if (static_cast<int>(free.size()) < count) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("the mesh needs ", count, " workers that are READY and ",
                     "free, got: ", free.size(), " free of ", ready, " READY, ",
                     workers_.size(), " known"),
        {.reason = "TOO_FEW_WORKERS",
         .metadata = {{"subject", "workers"},
                      {"expected", absl::StrCat(count)},
                      {"free", absl::StrCat(free.size())},
                      {"ready", absl::StrCat(ready)},
                      {"remedy",
                       "start more workers, delete a deployment, or use a "
                       "smaller mesh"}}});
  }
  std::vector<WorkerRecord> seated;
  for (int rank = 0; rank < count; ++rank) {
    free[rank]->seat = GangSeat{id, epoch, rank};
    seated.push_back(*free[rank]);
  }
  return seated;
}

void WorkerRegistry::Release(const WorkerId& id, GangEpoch epoch) {
  const auto it = workers_.find(id);
  if (it != workers_.end() && it->second.seat.has_value() &&
      it->second.seat->epoch == epoch) {
    it->second.seat.reset();
  }
}

const WorkerRecord* WorkerRegistry::Find(const WorkerId& id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? nullptr : &it->second;
}

std::vector<WorkerRecord> WorkerRegistry::List() const {
  std::vector<WorkerRecord> list;
  for (const auto& [unused, worker] : workers_) {
    list.push_back(worker);
  }
  return list;
}

absl::btree_map<WorkerState, int> WorkerRegistry::CountByState() const {
  absl::btree_map<WorkerState, int> counts;
  for (int state = 1; state <= static_cast<int>(WorkerState::kRetired);
       ++state) {
    counts[static_cast<WorkerState>(state)] = 0;
  }
  for (const auto& [unused, worker] : workers_) {
    ++counts[worker.state];
  }
  for (const auto& [unused, incarnations] : fenced_) {
    counts[WorkerState::kFenced] += static_cast<int>(incarnations.size());
  }
  return counts;
}

std::vector<Departure> WorkerRegistry::End(WorkerRecord& worker,
                                           WorkerState state,
                                           const std::string& reason,
                                           absl::Time now) {
  Departure departure{.worker = worker.id,
                      .incarnation = worker.incarnation,
                      .seat = std::exchange(worker.seat, std::nullopt),
                      .state = state};
  departure.reason = absl::StrCat("worker ", worker.id.value, " is ",
                                  ToString(state), ": ", reason);
  Enter(worker, state, reason, now);
  return {departure};
}

bool WorkerRegistry::IsFenced(const WorkerId& id,
                              Incarnation incarnation) const {
  const auto it = fenced_.find(id);
  return it != fenced_.end() && std::find(it->second.begin(), it->second.end(),
                                          incarnation) != it->second.end();
}

void WorkerRegistry::Fence(const WorkerRecord& worker) {
  std::vector<Incarnation>& fenced = fenced_[worker.id];
  fenced.push_back(worker.incarnation);
  if (fenced.size() > kMaxFencedPerName) {
    fenced.erase(fenced.begin());
  }
}

}  // namespace shardplane
