// What the ranks of a run answer, put together.
#ifndef SHARDPLANE_COORDINATOR_RUN_OUTCOMES_H_
#define SHARDPLANE_COORDINATOR_RUN_OUTCOMES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/device_mesh.h"
#include "coordinator/deployment.h"
#include "coordinator/deployment_state.h"
#include "coordinator/worker_client.h"

namespace shardplane {

// What that rank's collectives must hash to: the program's (nullptr: none
// runs), then those of the norm.
uint64_t ExpectedHash(const RunCall& call, const DeploymentProgram* program,
                      const DeviceMesh& mesh, int rank);

// Writes what a run of train or of the norm gives into `answer`: rank 0's
// collectives, the global loss, the norm, the slowest rank's times. `outcomes`
// are by rank. Internal: a rank without a loss, ranks that tell different
// norms.
absl::Status Assemble(const RunCall& call, const DeploymentProgram* program,
                      const std::vector<RunOutcome>& outcomes,
                      StepAnswer* answer);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_RUN_OUTCOMES_H_
