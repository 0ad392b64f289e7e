// Who is there: the workers by id, their leases and which gang each serves.
#ifndef SHARDPLANE_COORDINATOR_WORKER_REGISTRY_H_
#define SHARDPLANE_COORDINATOR_WORKER_REGISTRY_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/ids.h"

namespace shardplane {

enum class WorkerState {
  kRegistering = 1,  // announced; the coordinator has no connection yet
  kReady,            // leased, may serve a gang
  kDraining,         // leased, takes no new gang
  kLost,             // its lease ran out or its connection broke
  kFenced,           // another incarnation has taken its name
  kRetired,          // it said good-bye
};
std::string ToString(WorkerState state);  // "READY"

// A worker's place in a gang.
struct GangSeat {
  DeploymentId deployment;
  GangEpoch epoch;
  int rank = 0;
  friend bool operator==(const GangSeat&, const GangSeat&) = default;
};

struct WorkerRecord {
  WorkerId id;
  Incarnation incarnation;
  std::string address;       // of its Worker service
  std::string http_address;  // of its metrics
  std::string device;        // "cpu", "cuda:0"
  WorkerState state = WorkerState::kRegistering;
  std::string state_reason;  // one sentence
  absl::Time state_time;
  absl::Time lease_end;
  std::optional<GangSeat> seat;
};

// A worker that left its gang against the gang's will.
struct Departure {
  WorkerId worker;
  Incarnation incarnation;
  std::optional<GangSeat> seat;  // the seat that it had
  WorkerState state = WorkerState::kLost;
  std::string reason;  // "worker w2 is LOST: its lease ran out ..."
};

struct WorkerIntroduction {
  WorkerId id;
  Incarnation incarnation;
  std::string address;
  std::string http_address;
  std::string device;
};

enum class LeaseRequest { kRenew, kDrain, kRetire };

// A pure state machine: no clock, no thread, no lock. Owned and guarded by the
// Coordinator. Iterates in the order of ids.
//
//   w0 READY; Expire(lease_end + 1ms) -> w0 LOST, "its lease ran out"
class WorkerRegistry {
 public:
  explicit WorkerRegistry(absl::Duration lease) : lease_(lease) {}

  // A process introduces itself: REGISTERING, or as it was when this
  // incarnation is there already (a repeated call). A new incarnation fences
  // the one that had the name; what that one left is returned. Aborted: this
  // incarnation has been fenced. InvalidArgument: bad id, incarnation 0.
  absl::StatusOr<std::vector<Departure>> Register(
      const WorkerIntroduction& introduction, absl::Time now);
  // REGISTERING -> READY; nothing in any other state.
  void MarkReady(const WorkerId& id, Incarnation incarnation, absl::Time now);

  // Extends the lease; kDrain and kRetire also change the state. Returns what
  // the worker left (kRetire only). Aborted: a fenced incarnation. NotFound:
  // unknown, LOST or RETIRED; the worker registers again.
  absl::StatusOr<std::vector<Departure>> Renew(const WorkerId& id,
                                               Incarnation incarnation,
                                               LeaseRequest request,
                                               absl::Time now);

  // Workers whose lease ran out become LOST; those long gone are forgotten.
  std::vector<Departure> Expire(absl::Time now);
  // The worker's connection broke. Nothing if that incarnation is not leased.
  std::vector<Departure> MarkLost(const WorkerId& id, Incarnation incarnation,
                                  const std::string& reason, absl::Time now);

  // READY -> DRAINING, or back; true unless it was so. FailedPrecondition: in
  // any other state. The worker is known.
  absl::StatusOr<bool> SetDraining(const WorkerId& id, bool draining,
                                   absl::Time now);

  // Seats `count` READY workers without a seat, in the order of ids, as ranks
  // 0 … count-1. FailedPrecondition, saying how many there are, if too few;
  // nobody is seated then.
  absl::StatusOr<std::vector<WorkerRecord>> Assign(int count,
                                                   const DeploymentId& id,
                                                   GangEpoch epoch);
  // Frees the worker's seat if it still is in that epoch.
  void Release(const WorkerId& id, GangEpoch epoch);

  const WorkerRecord* Find(const WorkerId& id) const;
  std::vector<WorkerRecord> List() const;
  absl::btree_map<WorkerState, int> CountByState() const;  // all states
  absl::Duration lease() const { return lease_; }

 private:
  std::vector<Departure> End(WorkerRecord& worker, WorkerState state,
                             const std::string& reason, absl::Time now);
  bool IsFenced(const WorkerId& id, Incarnation incarnation) const;
  void Fence(const WorkerRecord& worker);

  absl::Duration lease_;
  absl::btree_map<WorkerId, WorkerRecord> workers_;
  // Incarnations that lost their name, oldest first; bounded.
  absl::btree_map<WorkerId, std::vector<Incarnation>> fenced_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_WORKER_REGISTRY_H_
