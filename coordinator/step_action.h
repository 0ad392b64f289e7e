// What the coordinator reads off a numbered action.
#ifndef SHARDPLANE_COORDINATOR_STEP_ACTION_H_
#define SHARDPLANE_COORDINATOR_STEP_ACTION_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/coordinator.h"
#include "coordinator/deployment.h"
#include "coordinator/upload_book.h"
#include "coordinator/worker_client.h"

namespace shardplane {

absl::string_view PhaseOf(const StepAction& action);  // for metrics: "train"

// The ids that it names.
std::vector<std::string> UploadsOf(const StepAction& action);

// The digest of the request and of the contents that it names.
std::string FullDigest(const StepCall& call, const UploadBook& uploads);

// What the ranks are to commit.
CommitCall ToCommitCall(StepNumber number, const StepAction& action);

// The optimizer that an action applies; nullptr: none.
const OptimizerOptions* OptimizerOf(const StepAction& action);

// Whether an update needs the norm of the gradients and no run tells it.
bool NeedsNormAlone(const StepAction& action);

// FailedPrecondition: the program has no loss to train with. Of one that
// changes buffers the forward pass alone is a step, for which no optimizer is
// given, no clip_norm and no accumulate: else InvalidArgument.
absl::Status CheckLoss(const DeploymentProgram& program,
                       const TrainAction& action);

// The program of a call. InvalidArgument, naming `field`: another
// deployment's. NotFound: no such program.
absl::StatusOr<std::shared_ptr<const DeploymentProgram>> FindProgram(
    Deployment& deployment, const ProgramName& name, const std::string& field)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(deployment.mu);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_ACTION_H_
