// From what a client describes to what will run: the pure core, called in
// order, with the fields of the request in its errors.
#ifndef SHARDPLANE_COORDINATOR_PLANNER_H_
#define SHARDPLANE_COORDINATOR_PLANNER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/compile.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/report.h"
#include "coordinator/ids.h"

namespace shardplane {

// What a client asks for when it creates a deployment.
struct DeploymentSpec {
  GraphModule module;
  std::optional<ModuleId>
      module_id;  // the named one that `module` is a copy of
  DeviceMesh mesh;
  std::optional<ParallelizePlan> plan;
  std::string plan_mesh_dim;  // "": "tp", else the only one left
  std::vector<DataParallel> data_parallel;
  std::optional<int> src_data_rank;  // group rank along the plan's mesh dim
  uint64_t seed = 0;
  bool strict = false;
  OverlapOptions overlap;
  int64_t unit_bytes = kDefaultUnitBytes;
  std::vector<std::string> recompute;   // patterns
  std::optional<LinkCosts> link_costs;  // nullopt: kDefaultLinkCosts
  bool fused_operators = false;         // see common/fused_operators.h
  absl::btree_map<std::string, std::string> labels;
};

struct SignatureSpec {
  std::optional<GraphModule> module;  // nullopt: the deployment's own
  Signature signature;
};

struct PlannedProgram {
  CompiledProgram compiled;
  Report report;
};

struct PlannedDeployment {
  ResolvedPlan plan;
  std::optional<PlannedProgram> program;  // where there is a signature
  Report report;  // with the program's part where there is one
};

// Errors of ResolvePlan and Compile, with the field of CreateDeploymentRequest
// that is to blame. InvalidArgument also: src_data_rank outside the plan's mesh
// dim.
absl::StatusOr<PlannedDeployment> PlanDeployment(
    const DeploymentSpec& spec, const std::optional<SignatureSpec>& signature);

// Errors of Compile. InvalidArgument also: a module with another tree or other
// parameters than the deployment's; it names the first difference.
absl::StatusOr<PlannedProgram> PlanProgram(const DeploymentSpec& spec,
                                           const ResolvedPlan& plan,
                                           const SignatureSpec& signature);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_PLANNER_H_
