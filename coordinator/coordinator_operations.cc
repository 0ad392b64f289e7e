// What lasts, and what is told to those who watch.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"

namespace shardplane {
namespace {

// How often a waiting call looks whether its caller has gone.
constexpr absl::Duration kLook = absl::Milliseconds(200);
constexpr absl::Duration kProgressTimeout = absl::Seconds(2);

// What a deployment's entering a phase is told as.
struct PhaseEvent {
  DeploymentPhase phase;
  EventSeverity severity;
  absl::string_view reason;
  absl::string_view message;
};
constexpr PhaseEvent kPhaseEvents[] = {
    {DeploymentPhase::kAwaitingData, EventSeverity::kNormal,
     "DEPLOYMENT_FORMED", "its gang is formed"},
    {DeploymentPhase::kMaterializing, EventSeverity::kNormal,
     "DEPLOYMENT_MATERIALIZING", "its parameters are placed"},
    {DeploymentPhase::kReady, EventSeverity::kNormal, "DEPLOYMENT_READY",
     "its parameters are placed on all ranks"},
    {DeploymentPhase::kFailed, EventSeverity::kWarning, "DEPLOYMENT_FAILED",
     "it has failed"},
    {DeploymentPhase::kDeleted, EventSeverity::kNormal, "DEPLOYMENT_DELETED",
     "it is deleted"},
};

}  // namespace

void Coordinator::Publish(const DeploymentPtr& deployment) {
  absl::MutexLock publishing(&publishing_);
  const DeploymentInfo info = deployment->Info();
  bool entered = false;
  {
    absl::MutexLock lock(&deployment->mu);
    entered = std::exchange(deployment->told_phase, info.phase) != info.phase;
  }
  const std::string name = ResourceName(info.id);
  if (info.phase == DeploymentPhase::kDeleted) {
    bulletin_.Hide(name);
  } else {
    bulletin_.Show(info);
  }
  for (const PhaseEvent& event : kPhaseEvents) {
    if (!entered || event.phase != info.phase) continue;
    bulletin_.Tell(
        event.severity, event.reason, name,
        info.reason.empty() ? std::string(event.message) : info.reason);
  }
}

void Coordinator::PublishWorker(const WorkerId& id) {
  absl::MutexLock publishing(&publishing_);
  const absl::StatusOr<WorkerRecord> worker = GetWorker(id);
  if (worker.ok()) bulletin_.Show(*worker);
}

void Coordinator::PublishAll() {
  absl::MutexLock publishing(&publishing_);
  std::vector<Shown> workers, deployments;
  std::vector<DeploymentPtr> there;
  {
    absl::MutexLock lock(&mu_);
    for (WorkerRecord& worker : registry_.List()) {
      workers.push_back(std::move(worker));
    }
    for (const auto& [unused, deployment] : deployments_) {
      if (deployment != nullptr) there.push_back(deployment);
    }
  }
  bulletin_.ShowAll("workers", std::move(workers));
  for (const DeploymentPtr& deployment : there) {
    deployments.push_back(deployment->Info());
  }
  UpdateDeploymentMetrics(deployments);
  bulletin_.ShowAll("deployments", std::move(deployments));
}

void Coordinator::UpdateDeploymentMetrics(
    const std::vector<Shown>& deployments) {
  Metrics* const metrics = options_.metrics;
  if (metrics == nullptr) return;
  absl::btree_map<DeploymentPhase, int> by_phase;
  for (int phase = 1; phase < static_cast<int>(DeploymentPhase::kDeleted);
       ++phase) {
    by_phase[static_cast<DeploymentPhase>(phase)] = 0;
  }
  absl::btree_set<std::string> there;
  for (const Shown& shown : deployments) {
    const auto& info = std::get<DeploymentInfo>(shown);
    ++by_phase[info.phase];
    there.insert(info.id.value);
    metrics->Set(Gauge::kDeploymentLastStep, {info.id.value},
                 static_cast<double>(info.last_step.value));
  }
  for (const auto& [phase, count] : by_phase) {
    metrics->Set(Gauge::kDeployments, {absl::AsciiStrToLower(ToString(phase))},
                 count);
  }
  for (const std::string& id : counted_deployments_) {
    if (there.count(id) == 0) {
      metrics->Remove(Gauge::kDeploymentLastStep, {id});
    }
  }
  counted_deployments_ = std::move(there);
}

void Coordinator::UpdateOperationMetrics() {
  if (options_.metrics == nullptr) return;
  absl::btree_map<OperationState, int> by_state;
  for (int state = 1; state <= static_cast<int>(OperationState::kCancelled);
       ++state) {
    by_state[static_cast<OperationState>(state)] = 0;
  }
  for (const OperationRecord& operation : operations_.List()) {
    ++by_state[operation.state];
  }
  for (const auto& [state, count] : by_state) {
    options_.metrics->Set(Gauge::kOperations,
                          {ToString(OperationKind::kMaterialize),
                           absl::AsciiStrToLower(ToString(state))},
                          count);
  }
}

absl::StatusOr<OperationId> Coordinator::BeginOperation(
    const DeploymentPtr& deployment, OperationKind kind) {
  const OperationId id{absl::StrCat("o", options_.random_id())};
  OperationRecord record;
  {
    absl::MutexLock lock(&mu_);
    SP_ASSIGN_OR_RETURN(record, operations_.Begin(id, options_.random_uid(),
                                                  kind, deployment->id, Now()));
    running_[id] = {deployment,
                    std::make_shared<ProgressBoard>(deployment->gang->size())};
    UpdateOperationMetrics();
  }
  {
    absl::MutexLock lock(&deployment->mu);
    deployment->operation = id;
  }
  bulletin_.Show(std::move(record));
  return id;
}

OperationProgress Coordinator::ProgressBoard::Sum() const {
  absl::MutexLock lock(&mu);
  OperationProgress sum{.phase = "placing parameters"};
  for (const MaterializeProgress& rank : ranks) {
    sum.bytes_done += rank.bytes_done;
    sum.bytes_total += rank.bytes_total;
  }
  return sum;
}

void Coordinator::PollOperations() {
  std::vector<RunningOperation> running;
  std::vector<OperationRecord> shown;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [id, operation] : running_) {
      operations_.Progress(id, operation.board->Sum(), Now());
      shown.push_back(*operations_.Find(id));
      running.push_back(operation);
    }
    for (const OperationId& id : operations_.Expire(Now())) {
      bulletin_.Hide(ResourceName(id));
    }
    UpdateOperationMetrics();
  }
  for (OperationRecord& record : shown) bulletin_.Show(std::move(record));
  for (const RunningOperation& operation : running) {
    AskForProgress(operation);
  }
}

void Coordinator::AskForProgress(const RunningOperation& operation) {
  // The answers come when they do, also to nobody.
  const std::shared_ptr<ProgressBoard> board = operation.board;
  operation.deployment->gang->Ask(
      kProgressTimeout,
      [board](int rank, WorkerClient& client, const GangRef& gang,
              const CallOptions& options) {
        client.GetProgress(
            gang, options,
            [board, rank](const absl::StatusOr<MaterializeProgress>& made) {
              if (!made.ok()) return;
              absl::MutexLock lock(&board->mu);
              board->ranks[rank] = *made;
            });
      });
}

void Coordinator::AwaitProgress(const OperationId& id) {
  RunningOperation operation;
  {
    absl::MutexLock lock(&mu_);
    operation = running_.at(id);
  }
  ProgressBoard& board = *operation.board;
  operation.deployment->gang->TryAll(
      {.timeout = kProgressTimeout},
      [&board](int rank, WorkerClient& client, const GangRef& gang,
               const CallOptions& options, WorkerClient::Done done) {
        client.GetProgress(
            gang, options,
            [&board, rank,
             done](const absl::StatusOr<MaterializeProgress>& made) {
              if (made.ok()) {
                absl::MutexLock lock(&board.mu);
                board.ranks[rank] = *made;
              }
              done(made.status());
            });
      });
}

void Coordinator::EndOperation(const OperationId& id,
                               const absl::Status& status) {
  // Told before it shows as over to those who wait.
  absl::MutexLock lock(&mu_);
  const auto running = running_.find(id);
  if (running != running_.end()) {
    operations_.Progress(id, running->second.board->Sum(), Now());
    running_.erase(running);
  }
  operations_.End(id, status, Now());
  const OperationRecord record = *operations_.Find(id);
  UpdateOperationMetrics();
  bulletin_.Show(record);
  if (record.state == OperationState::kCancelled) {
    bulletin_.Tell(EventSeverity::kWarning, "OPERATION_CANCELLED",
                   ResourceName(record.deployment),
                   absl::StrCat(ResourceName(id), " was cancelled"));
  }
}

absl::StatusOr<OperationRecord> Coordinator::GetOperation(
    const OperationId& id) const {
  absl::MutexLock lock(&mu_);
  return operations_.Find(id);
}

std::vector<OperationRecord> Coordinator::ListOperations() const {
  absl::MutexLock lock(&mu_);
  return operations_.List();
}

absl::StatusOr<OperationRecord> Coordinator::WaitOperation(
    const OperationId& id, const CallContext& context) const {
  absl::MutexLock lock(&mu_);
  const auto over = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto found = operations_.Find(id);
    return !found.ok() || found->state != OperationState::kRunning;
  };
  while (!mu_.AwaitWithTimeout(absl::Condition(&over), kLook)) {
    if (absl::Now() >= context.deadline ||
        (context.cancelled && context.cancelled())) {
      break;
    }
  }
  return operations_.Find(id);
}

absl::StatusOr<OperationRecord> Coordinator::CancelOperation(
    const OperationId& id) {
  DeploymentPtr deployment;
  {
    absl::MutexLock lock(&mu_);
    SP_ASSIGN_OR_RETURN(const bool running, operations_.Cancel(id));
    if (!running) return operations_.Find(id);
    deployment = running_.at(id).deployment;
  }
  const std::string reason = absl::StrCat(ResourceName(id), " was cancelled");
  deployment->gang->Break(
      absl::StrCat(ResourceName(deployment->id), ": ", reason));
  rendezvous_.Close(deployment->id, deployment->gang->epoch(), reason);
  return WaitOperation(id, {.deadline = absl::Now() + options_.call_timeout});
}

absl::StatusOr<WorkerRecord> Coordinator::DrainWorker(const WorkerId& id,
                                                      bool undo) {
  SP_RETURN_IF_ERROR(GetWorker(id).status());
  WorkerRecord worker;
  bool changed = false;
  {
    absl::MutexLock lock(&mu_);
    SP_ASSIGN_OR_RETURN(changed, registry_.SetDraining(id, !undo, Now()));
    worker = *registry_.Find(id);
    UpdateWorkerMetrics();
  }
  PublishWorker(id);
  if (changed) {
    bulletin_.Tell(EventSeverity::kNormal,
                   undo ? "WORKER_UNDRAINED" : "WORKER_DRAINING",
                   ResourceName(id), worker.state_reason);
  }
  return worker;
}

absl::StatusOr<std::vector<StepAnswer>> Coordinator::ListSteps(
    const DeploymentId& id, StepNumber after, size_t limit) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  absl::MutexLock lock(&deployment->mu);
  return deployment->history.After(after, limit);
}

}  // namespace shardplane
