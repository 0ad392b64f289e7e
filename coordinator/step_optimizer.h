// Checks the optimizer of an action against the deployment's module and state.
#ifndef SHARDPLANE_COORDINATOR_STEP_OPTIMIZER_H_
#define SHARDPLANE_COORDINATOR_STEP_OPTIMIZER_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/graph_module.h"
#include "common/optimizer.h"

namespace shardplane {

// Before anything runs. InvalidArgument, naming `field` and what lies in it: a
// group's pattern that matches no parameter; a tied parameter goes by its first
// name. FailedPrecondition: the optimizer state is of another `kind` ("": of
// none).
//   CheckOptimizer(Adam with groups {"nrm.*"}, module, "Adam",
//                  "train.optimizer")
//     -> "train.optimizer.groups[0].patterns[0]: expected a pattern that ..."
absl::Status CheckOptimizer(const OptimizerOptions& optimizer,
                            const GraphModule& module, absl::string_view kind,
                            absl::string_view field);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_OPTIMIZER_H_
