// Programs: compiled once a signature, sent to every rank.
#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "coordinator/coordinator.h"

namespace shardplane {

absl::StatusOr<std::shared_ptr<const DeploymentProgram>>
Coordinator::CreateProgram(const DeploymentId& id,
                           const SignatureSpec& signature, bool validate_only,
                           const CallContext& context) {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  {
    absl::MutexLock lock(&deployment->mu);
    SP_RETURN_IF_ERROR(deployment->state.CheckAlive("create a program"));
  }
  // Planning needs no turn: it touches no worker.
  SP_ASSIGN_OR_RETURN(
      PlannedProgram planned,
      PlanProgram(*deployment->spec, deployment->plan, signature));
  std::shared_ptr<const DeploymentProgram> program =
      MakeProgram(id, std::move(planned),
                  static_cast<int>(signature.signature.inputs.size()), Now());
  if (validate_only) {
    return program;
  }
  SP_ASSIGN_OR_RETURN(
      const ActionQueue::Turn turn,
      deployment->queue.Wait(ActionQueue::Kind::kAlone, context.deadline,
                             context.cancelled));
  const absl::StatusOr<std::shared_ptr<const DeploymentProgram>> existing =
      deployment->FindProgram(program->id);
  if (existing.ok()) {
    return *existing;
  }
  SP_RETURN_IF_ERROR(AddProgram(deployment, program));
  return program;
}

absl::Status Coordinator::AddProgram(
    const DeploymentPtr& deployment,
    std::shared_ptr<const DeploymentProgram> program) {
  {
    absl::MutexLock lock(&deployment->mu);
    SP_RETURN_IF_ERROR(deployment->state.CheckAlive("create a program"));
  }
  const std::optional<CallFailure> failure = deployment->gang->CallAll(
      Spec(options_.call_timeout),
      [&program](int, WorkerClient& client, const GangRef& ref,
                 const CallOptions& options, WorkerClient::Done done) {
        client.LoadProgram(ref, program->id, program->program, options,
                           std::move(done));
      });
  if (failure.has_value()) {
    return HandleFailure(deployment, *failure);
  }
  {
    absl::MutexLock lock(&deployment->mu);
    deployment->programs.push_back(std::move(program));
  }
  Publish(deployment);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const DeploymentProgram>>
Coordinator::GetProgram(const DeploymentId& id,
                        const ProgramId& program) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  return deployment->FindProgram(program);
}

absl::StatusOr<std::vector<std::shared_ptr<const DeploymentProgram>>>
Coordinator::ListPrograms(const DeploymentId& id) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  std::vector<std::shared_ptr<const DeploymentProgram>> programs;
  {
    absl::MutexLock lock(&deployment->mu);
    programs = deployment->programs;
  }
  std::sort(programs.begin(), programs.end(),
            [](const auto& a, const auto& b) { return a->id < b->id; });
  return programs;
}

}  // namespace shardplane
