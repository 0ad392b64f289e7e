// Why a module, parameter or buffer lies as it does.
#include <memory>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "coordinator/coordinator.h"

namespace shardplane {
namespace {

absl::StatusOr<Explanation> ExplainPlanned(
    const DeploymentSpec& spec, const ResolvedPlan& plan,
    const std::vector<Diagnostic>& diagnostics,
    const std::vector<ExplainedProgram>& programs, absl::string_view fqn) {
  return Explain({.module = spec.module,
                  .mesh = spec.mesh,
                  .plan = spec.plan,
                  .resolved = plan,
                  .diagnostics = diagnostics,
                  .programs = programs},
                 fqn);
}

}  // namespace

absl::StatusOr<Explanation> Coordinator::ExplainDeployment(
    const DeploymentId& id, absl::string_view fqn) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  std::vector<std::shared_ptr<const DeploymentProgram>> programs;
  {
    absl::MutexLock lock(&deployment->mu);
    programs = deployment->programs;
  }
  std::vector<Diagnostic> diagnostics = deployment->plan.diagnostics;
  std::vector<ExplainedProgram> explained;
  for (const auto& program : programs) {
    explained.push_back({ResourceName(id, program->id), &program->program});
    diagnostics.insert(diagnostics.end(), program->report.diagnostics.begin(),
                       program->report.diagnostics.end());
  }
  return ExplainPlanned(*deployment->spec, deployment->plan, diagnostics,
                        explained, fqn);
}

absl::StatusOr<Explanation> Coordinator::ExplainDryRun(
    CreateCall call, absl::string_view fqn) const {
  SP_RETURN_IF_ERROR(Complete(&call.spec));
  SP_ASSIGN_OR_RETURN(const PlannedDeployment planned,
                      PlanDeployment(call.spec, call.signature));
  std::vector<ExplainedProgram> explained;
  if (planned.program.has_value()) {
    explained.push_back({"", &planned.program->compiled.program});
  }
  return ExplainPlanned(call.spec, planned.plan, planned.report.diagnostics,
                        explained, fqn);
}

}  // namespace shardplane
