// Deployments: made, materialized, shown, deleted.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "coordinator/etag.h"

namespace shardplane {
namespace {

// Workers that turn out to be gone are replaced by others this many times.
constexpr int kMaxFormings = 8;
// How long workers of a gang that leaves may take to become free.
constexpr absl::Duration kLeaving = absl::Seconds(10);

int CountUnmatched(const Report& report) {
  return static_cast<int>(std::count_if(
      report.diagnostics.begin(), report.diagnostics.end(),
      [](const Diagnostic& d) { return d.reason == "PATTERN_WITHOUT_MATCH"; }));
}

// The report with what materializing really ran.
std::shared_ptr<const Report> WithMaterialized(
    const Report& report, const std::vector<CollectiveCount>& ran) {
  auto result = std::make_shared<Report>(report);
  std::vector<CollectiveCount> counts = ran;
  for (const CollectiveCount& count : report.collectives) {
    if (count.phase != "materialize") {
      counts.push_back(count);
    }
  }
  result->collectives = std::move(counts);
  return result;
}

MaterializeCall MakeMaterializeCall(const Deployment& deployment) {
  MaterializeCall call{.plan_mesh_dim = deployment.plan.mesh_dim,
                       .src_data_rank = deployment.spec->src_data_rank,
                       .seed = deployment.spec->seed};
  const std::vector<Parameter>& parameters =
      deployment.spec->module.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].alias_of.empty()) {
      call.parameters.push_back({parameters[i].fqn, parameters[i].type,
                                 deployment.plan.parameter_specs[i],
                                 parameters[i].requires_grad,
                                 parameters[i].initializer});
    }
  }
  return call;
}

}  // namespace

absl::Status Coordinator::Complete(DeploymentSpec* spec) const {
  if (!spec->link_costs.has_value()) spec->link_costs = options_.link_costs;
  spec->fused_operators = options_.fused_operators;
  return CopyModule(spec);
}

absl::StatusOr<PlannedDeployment> Coordinator::Plan(CreateCall* call) {
  SP_RETURN_IF_ERROR(Complete(&call->spec));
  const absl::Time start = Now();
  absl::StatusOr<PlannedDeployment> planned =
      PlanDeployment(call->spec, call->signature);
  if (options_.metrics != nullptr) {
    options_.metrics->Observe(Histogram::kPlanResolve, {}, Now() - start);
  }
  if (planned.ok()) {
    AddMetric(Counter::kPlanUnmatchedPatterns, {},
              CountUnmatched(planned->report));
  }
  return planned;
}

absl::StatusOr<DeploymentInfo> Coordinator::CreateDeployment(
    CreateCall call, const CallContext& context) {
  absl::StatusOr<PlannedDeployment> planned = Plan(&call);
  SP_RETURN_IF_ERROR(planned.status());
  const auto spec =
      std::make_shared<const DeploymentSpec>(std::move(call.spec));
  if (call.validate_only) {
    return DeploymentInfo{
        .id = call.id.value_or(DeploymentId()),
        .spec = spec,
        .plan_mesh_dim = spec->mesh.dims()[planned->plan.mesh_dim].name,
        .report = std::make_shared<const Report>(planned->report)};
  }
  const DeploymentId id =
      call.id.value_or(DeploymentId{absl::StrCat("d", options_.random_id())});
  SP_RETURN_IF_ERROR(ReserveId(id));
  absl::StatusOr<DeploymentPtr> deployment =
      FormDeployment(id, spec, *planned, context);
  if (deployment.ok() && planned->program.has_value()) {
    const absl::Status added = AddProgram(
        *deployment,
        MakeProgram(id, *std::move(planned->program),
                    static_cast<int>(call.signature->signature.inputs.size()),
                    Now()));
    if (!added.ok()) {
      (void)DeleteDeployment({.id = id});
      return added;
    }
    Publish(*deployment);
  }
  if (!deployment.ok()) {
    absl::MutexLock lock(&mu_);
    deployments_.erase(id);
    return deployment.status();
  }
  return (*deployment)->Info();
}

absl::Status Coordinator::ReserveId(const DeploymentId& id) {
  absl::MutexLock lock(&mu_);
  if (!deployments_.emplace(id, nullptr).second) {
    return MakeError(absl::StatusCode::kAlreadyExists,
                     absl::StrCat("deployment_id: expected one that is not ",
                                  "taken, got: ", ResourceName(id)),
                     {.reason = "DEPLOYMENT_EXISTS",
                      .metadata = {{"field", "deployment_id"},
                                   {"resource", ResourceName(id)}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Gang>> Coordinator::SeatGang(
    const DeploymentId& id, int count) {
  absl::MutexLock lock(&mu_);
  const GangEpoch epoch{next_epoch_.value++};
  SP_ASSIGN_OR_RETURN(const std::vector<WorkerRecord> seated,
                      registry_.Assign(count, id, epoch));
  if (options_.metrics != nullptr) {
    options_.metrics->Set(Gauge::kCoordinatorEpoch, {},
                          static_cast<double>(epoch.value));
  }
  std::vector<Gang::Member> members;
  for (const WorkerRecord& worker : seated) {
    members.push_back(
        {worker.id, worker.incarnation, connections_.at(worker.id).client});
  }
  return std::make_shared<Gang>(id, epoch, std::move(members), options_.gang);
}

absl::StatusOr<Coordinator::DeploymentPtr> Coordinator::FormDeployment(
    const DeploymentId& id, std::shared_ptr<const DeploymentSpec> spec,
    const PlannedDeployment& planned, const CallContext& context) {
  const std::string uid = options_.random_uid();
  absl::Status last;
  for (int attempt = 0; attempt < kMaxFormings; ++attempt) {
    absl::StatusOr<std::shared_ptr<Gang>> gang =
        SeatGang(id, spec->mesh.size());
    if (!gang.ok()) {
      // Those of a gang that is just leaving may do.
      background_.WaitUntilIdle(
          std::min(context.deadline, absl::Now() + kLeaving));
      gang = SeatGang(id, spec->mesh.size());
    }
    SP_RETURN_IF_ERROR(gang.status());
    std::vector<RankMember> members;
    for (int rank = 0; rank < (*gang)->size(); ++rank) {
      const Gang::Member& member = (*gang)->member(rank);
      members.push_back({member.worker, member.incarnation});
    }
    auto deployment = std::make_shared<Deployment>(
        DeploymentState(id, (*gang)->epoch(), std::move(members), Now()), uid,
        spec, planned.plan, planned.report, *gang);
    {
      absl::MutexLock lock(&mu_);
      deployments_[id] = deployment;
    }
    const std::optional<CallFailure> failure = JoinGang(deployment);
    if (!failure.has_value()) {
      Publish(deployment);
      for (int rank = 0; rank < (*gang)->size(); ++rank) {
        PublishWorker((*gang)->member(rank).worker);
      }
      return deployment;
    }
    last = HandleFailure(deployment, *failure);
    if (failure->lost.empty()) {
      break;
    }
  }
  return last;
}

std::optional<CallFailure> Coordinator::JoinGang(
    const DeploymentPtr& deployment) {
  Gang& gang = *deployment->gang;
  std::vector<Incarnation> incarnations;
  for (int rank = 0; rank < gang.size(); ++rank) {
    incarnations.push_back(gang.member(rank).incarnation);
  }
  rendezvous_.Open(deployment->id, gang.epoch(), std::move(incarnations));
  std::optional<CallFailure> failure = gang.CallAll(
      Spec(options_.join_timeout),
      [&](int rank, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        client.JoinGang(ref,
                        {.rank = rank,
                         .mesh = deployment->spec->mesh,
                         .rendezvous = options_.rendezvous_address(),
                         .timeout = options_.collective_timeout},
                        options, std::move(done));
      });
  if (failure.has_value()) {
    return failure;
  }
  absl::MutexLock lock(&deployment->mu);
  const auto formed = deployment->state.Apply(GangFormed{}, Now());
  if (!formed.ok()) {
    return CallFailure{.status = formed.status(),
                       .health = GangHealth::kBroken};
  }
  return std::nullopt;
}

absl::StatusOr<DeploymentInfo> Coordinator::GetDeployment(
    const DeploymentId& id) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  return deployment->Info();
}

std::vector<DeploymentInfo> Coordinator::ListDeployments() const {
  std::vector<DeploymentPtr> deployments;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [unused, deployment] : deployments_) {
      if (deployment != nullptr) {
        deployments.push_back(deployment);
      }
    }
  }
  std::vector<DeploymentInfo> infos;
  for (const DeploymentPtr& deployment : deployments) {
    infos.push_back(deployment->Info());
  }
  return infos;
}

absl::Status Coordinator::DeleteDeployment(const DeleteCall& call) {
  const absl::StatusOr<DeploymentPtr> deployment = Find(call.id);
  if (!deployment.ok()) {
    return call.allow_missing ? absl::OkStatus() : deployment.status();
  }
  absl::StatusOr<std::vector<DeploymentAction>> actions;
  {
    absl::MutexLock lock(&(*deployment)->mu);
    SP_RETURN_IF_ERROR(CheckEtag(call.etag, (*deployment)->state.etag(),
                                 ResourceName(call.id)));
    SP_ASSIGN_OR_RETURN(actions,
                        (*deployment)->state.Apply(DeleteRequested{}, Now()));
  }
  {
    absl::MutexLock lock(&mu_);
    const auto it = deployments_.find(call.id);
    if (it != deployments_.end() && it->second == *deployment) {
      deployments_.erase(it);
    }
  }
  Perform(*deployment, *actions);
  Publish(*deployment);
  // Its workers are free when the caller hears of it.
  background_.WaitUntilIdle(absl::Now() + kLeaving);
  return absl::OkStatus();
}

absl::Status Coordinator::CheckDataUploaded(Deployment& deployment) {
  SP_ASSIGN_OR_RETURN(const std::vector<int> ranks,
                      deployment.SourceRanks(std::nullopt));
  absl::MutexLock lock(&deployment.mu);
  std::string first;
  int missing = 0;
  for (const Parameter& parameter : deployment.spec->module.parameters()) {
    if (!parameter.alias_of.empty() || parameter.initializer.has_value()) {
      continue;
    }
    for (const int rank : ranks) {
      if (!deployment.uploads.HasParameter(parameter.fqn, rank)) {
        ++missing;
        first = first.empty()
                    ? absl::StrCat("\"", parameter.fqn, "\" at rank ", rank)
                    : first;
      }
    }
  }
  if (missing == 0) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("materialize: ", ResourceName(deployment.id),
                   ": expected the data of all parameters to be uploaded, "
                   "got: none for ",
                   first, " (", missing, " missing)"),
      {.reason = "PARAMETER_DATA_MISSING",
       .metadata = {{"resource", ResourceName(deployment.id)},
                    {"missing", absl::StrCat(missing)},
                    {"remedy", "call UploadTensor for it"}}});
}

absl::StatusOr<DeploymentInfo> Coordinator::MaterializeDeployment(
    const DeploymentId& id, GangEpoch epoch, const CallContext& context,
    Wait wait) {
  SP_ASSIGN_OR_RETURN(Admitted admitted, Admit(id, epoch, context));
  const DeploymentPtr deployment = admitted.deployment;
  SP_ASSIGN_OR_RETURN(const OperationId operation,
                      BeginMaterialize(deployment));
  if (wait == Wait::kNot) {
    tasks_.Add([this, operation, admitted = std::move(admitted),
                traceparent = context.traceparent] {
      // The operation and the deployment tell what came of it.
      Materialize(admitted.deployment, operation, traceparent).IgnoreError();
    });
    return deployment->Info();
  }
  SP_RETURN_IF_ERROR(Materialize(deployment, operation, context.traceparent));
  return deployment->Info();
}

absl::StatusOr<OperationId> Coordinator::BeginMaterialize(
    const DeploymentPtr& deployment) {
  {
    absl::MutexLock lock(&deployment->mu);
    SP_RETURN_IF_ERROR(deployment->state.CheckMaterializable());
  }
  SP_RETURN_IF_ERROR(CheckDataUploaded(*deployment));
  SP_ASSIGN_OR_RETURN(const OperationId operation,
                      BeginOperation(deployment, OperationKind::kMaterialize));
  absl::Status begun;
  {
    absl::MutexLock lock(&deployment->mu);
    begun = deployment->state.Apply(MaterializeRequested{}, Now()).status();
  }
  if (!begun.ok()) {
    EndOperation(operation, begun);
    return begun;
  }
  Publish(deployment);
  return operation;
}

std::optional<CallFailure> Coordinator::MaterializeOnAll(
    Deployment& deployment, const std::string& traceparent,
    std::vector<std::vector<CollectiveCount>>* ran) {
  const MaterializeCall call = MakeMaterializeCall(deployment);
  ran->resize(deployment.gang->size());
  return deployment.gang->CallAll(
      Spec(options_.run_timeout, traceparent),
      [&](int rank, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        client.Materialize(
            ref, call, options,
            [ran, rank,
             done](absl::StatusOr<std::vector<CollectiveCount>> counts) {
              if (counts.ok()) (*ran)[rank] = *counts;
              done(counts.status());
            });
      });
}

absl::Status Coordinator::Materialize(const DeploymentPtr& deployment,
                                      const OperationId& operation,
                                      const std::string& traceparent) {
  const absl::Time start = Now();
  std::vector<std::vector<CollectiveCount>> ran;
  if (const std::optional<CallFailure> failure =
          MaterializeOnAll(*deployment, traceparent, &ran);
      failure.has_value()) {
    const absl::Status status = HandleFailure(deployment, *failure);
    EndOperation(operation, status);
    return status;
  }
  if (options_.metrics != nullptr) {
    options_.metrics->Observe(Histogram::kMaterializeDuration, {},
                              Now() - start);
  }
  AwaitProgress(operation);
  absl::Status done;
  {
    absl::MutexLock lock(&deployment->mu);
    done = deployment->state.Apply(MaterializeDone{}, Now()).status();
    if (done.ok()) {
      deployment->report = WithMaterialized(*deployment->report, ran[0]);
    }
  }
  EndOperation(operation, done);
  Publish(deployment);
  return done;
}

}  // namespace shardplane
