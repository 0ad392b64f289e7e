// What the coordinator keeps about one deployment.
#ifndef SHARDPLANE_COORDINATOR_DEPLOYMENT_H_
#define SHARDPLANE_COORDINATOR_DEPLOYMENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/action_queue.h"
#include "coordinator/deployment_state.h"
#include "coordinator/gang.h"
#include "coordinator/ids.h"
#include "coordinator/planner.h"
#include "coordinator/step_history.h"
#include "coordinator/upload_book.h"

namespace shardplane {

// A compiled program of a deployment; immutable.
struct DeploymentProgram {
  DeploymentId deployment;
  ProgramId id;
  std::string uid;  // digest of the program
  absl::Time create_time;
  ShardedProgram program;
  Report report;
  int num_inputs = 0;  // of the module; the rest of program.inputs: targets
  // What each rank's collectives must hash to, by rank.
  std::vector<uint64_t> forward_hash;
  std::vector<uint64_t> train_hash;
};

// How a deployment is shown.
struct DeploymentInfo {
  DeploymentId id;
  std::string uid;
  std::string etag;
  absl::Time create_time;
  absl::Time update_time;
  DeploymentPhase phase = DeploymentPhase::kForming;
  std::string reason;
  // Shared with the deployment; immutable.
  std::shared_ptr<const DeploymentSpec> spec;
  std::string plan_mesh_dim;
  std::shared_ptr<const Report> report;
  StepNumber last_step;
  GangEpoch epoch;
  std::vector<WorkerId> workers;
  std::vector<ProgramId> programs;  // in the order of creation
  OperationId operation;            // the last one; "": none yet
};

// Thread-safe: what may change is guarded by `mu`; actions take a turn of
// `queue` first. Shared by the coordinator's index and the calls that work on
// it. `mu` is held before no other lock; `sending` before `mu`.
struct Deployment {
  Deployment(DeploymentState state_in, std::string uid_in,
             std::shared_ptr<const DeploymentSpec> spec_in,
             ResolvedPlan plan_in, Report report_in,
             std::shared_ptr<Gang> gang_in);

  const DeploymentId id;
  const std::string uid;
  const std::shared_ptr<const DeploymentSpec> spec;
  const ResolvedPlan plan;
  const std::shared_ptr<Gang> gang;  // shared with the calls that run on it
  ActionQueue queue;

  // Training steps are accepted, and their ranks told, one after the other.
  absl::Mutex sending;

  absl::Mutex mu;
  DeploymentState state ABSL_GUARDED_BY(mu);
  std::shared_ptr<const Report> report ABSL_GUARDED_BY(mu);
  UploadBook uploads ABSL_GUARDED_BY(mu);
  std::vector<std::shared_ptr<const DeploymentProgram>> programs
      ABSL_GUARDED_BY(mu);
  // The program of the last call, for its outputs; nullptr before the first.
  std::shared_ptr<const DeploymentProgram> last_run ABSL_GUARDED_BY(mu);
  // Of the optimizer state that the workers have, a KindName; "": none.
  std::string optimizer_kind ABSL_GUARDED_BY(mu);
  // The same, were all steps under way to succeed.
  std::string accepted_kind ABSL_GUARDED_BY(mu);
  OperationId operation ABSL_GUARDED_BY(mu);  // the last one
  // The phase that those who watch have last been told of.
  DeploymentPhase told_phase ABSL_GUARDED_BY(mu) = DeploymentPhase::kForming;
  StepHistory history ABSL_GUARDED_BY(mu);
  // When the last training step was over.
  absl::Time last_outcome ABSL_GUARDED_BY(mu) = absl::InfinitePast();

  DeploymentInfo Info() ABSL_LOCKS_EXCLUDED(mu);
  // NotFound, with the names there are.
  absl::StatusOr<std::shared_ptr<const DeploymentProgram>> FindProgram(
      const ProgramId& program) ABSL_LOCKS_EXCLUDED(mu);
  absl::StatusOr<std::shared_ptr<const DeploymentProgram>> FindProgramLocked(
      const ProgramId& program) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  // The parameter or buffer of that name, or the one it is another name of.
  // NotFound, naming `field`, if there is none.
  struct CanonicalParameter {
    const Parameter* parameter;
    const DTensorSpec* spec;
  };
  absl::StatusOr<CanonicalParameter> FindParameter(
      absl::string_view fqn, absl::string_view field) const;

  // The ranks that get a parameter's source data for materialize. `rank` is
  // the group rank along the plan's mesh dim that a client names, if it does.
  // InvalidArgument if that is out of range.
  absl::StatusOr<std::vector<int>> SourceRanks(std::optional<int> rank) const;
};

// A program ready to be used: hashes of all ranks' collectives computed.
std::shared_ptr<const DeploymentProgram> MakeProgram(
    const DeploymentId& deployment, PlannedProgram planned, int num_inputs,
    absl::Time now);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DEPLOYMENT_H_
