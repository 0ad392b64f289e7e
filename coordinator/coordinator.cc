// Membership, and what happens when a worker goes.
#include "coordinator/coordinator.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"

namespace shardplane {
namespace {

constexpr absl::Duration kLeaveTimeout = absl::Seconds(10);

absl::Status DeploymentNotFound(const DeploymentId& id) {
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("expected a deployment that is there, got: ",
                                ResourceName(id)),
                   {.reason = "DEPLOYMENT_NOT_FOUND",
                    .metadata = {{"resource", ResourceName(id)}}});
}

}  // namespace

Coordinator::Coordinator(Options options)
    : options_(std::move(options)),
      bulletin_({.clock = options_.clock,
                 .metrics = options_.metrics,
                 .log = options_.log}),
      registry_(options_.lease),
      next_epoch_(options_.first_epoch) {
  absl::MutexLock lock(&mu_);
  UpdateWorkerMetrics();
  UpdateOperationMetrics();
  if (options_.metrics != nullptr) {
    options_.metrics->Set(Gauge::kCoordinatorIsLeader, {}, 1);
    // Rates know nothing of a series' first value: they are there from now on.
    for (const char* reason : {"lost", "fenced", "retired"}) {
      AddMetric(Counter::kWorkerLost, {reason}, 0);
    }
    for (const char* result : {"ok", "failed"}) {
      AddMetric(Counter::kSteps, {"train", result}, 0);
    }
  }
}

Coordinator::~Coordinator() {
  // Operations that nobody waits for.
  EndCalls("the coordinator shuts down");
}

absl::StatusOr<Coordinator::Lease> Coordinator::RegisterWorker(
    const WorkerIntroduction& introduction) {
  std::vector<Departure> departures;
  bool is_new = false;
  {
    absl::MutexLock lock(&mu_);
    SP_ASSIGN_OR_RETURN(departures, registry_.Register(introduction, Now()));
    Connection& connection = connections_[introduction.id];
    is_new = connection.incarnation != introduction.incarnation;
    if (is_new) {
      connection = {introduction.incarnation,
                    options_.connect(introduction.address)};
    }
    registry_.MarkReady(introduction.id, introduction.incarnation, Now());
    UpdateWorkerMetrics();
  }
  HandleDepartures(departures);
  PublishWorker(introduction.id);
  if (is_new) {
    bulletin_.Tell(
        EventSeverity::kNormal, "WORKER_REGISTERED",
        ResourceName(introduction.id),
        absl::StrCat(introduction.device, " at ", introduction.address));
  }
  return Lease{options_.incarnation, options_.lease};
}

absl::StatusOr<Coordinator::Lease> Coordinator::RenewLease(
    const WorkerId& id, Incarnation incarnation, LeaseRequest request) {
  const std::optional<Admitted> last = request == LeaseRequest::kRetire
                                           ? AwaitLastCall(id, incarnation)
                                           : std::nullopt;
  std::vector<Departure> departures;
  bool drains = false;
  {
    absl::MutexLock lock(&mu_);
    const WorkerRecord* worker = registry_.Find(id);
    const bool drained =
        worker != nullptr && worker->state == WorkerState::kDraining;
    SP_ASSIGN_OR_RETURN(departures,
                        registry_.Renew(id, incarnation, request, Now()));
    drains = !drained && request == LeaseRequest::kDrain;
    UpdateWorkerMetrics();
  }
  HandleDepartures(departures);
  if (drains) {
    PublishWorker(id);
    bulletin_.Tell(EventSeverity::kNormal, "WORKER_DRAINING", ResourceName(id),
                   "it was told to stop");
  }
  return Lease{options_.incarnation, options_.lease};
}

std::optional<Coordinator::Admitted> Coordinator::AwaitLastCall(
    const WorkerId& id, Incarnation incarnation) const {
  DeploymentId deployment_id;
  {
    absl::MutexLock lock(&mu_);
    const WorkerRecord* worker = registry_.Find(id);
    if (worker == nullptr || worker->incarnation != incarnation ||
        !worker->seat.has_value()) {
      return std::nullopt;
    }
    deployment_id = worker->seat->deployment;
  }
  absl::StatusOr<DeploymentPtr> deployment = Find(deployment_id);
  if (!deployment.ok()) return std::nullopt;
  absl::StatusOr<ActionQueue::Turn> turn =
      (*deployment)
          ->queue.Wait(ActionQueue::Kind::kAlone,
                       absl::Now() + options_.lease / 4);
  if (!turn.ok()) return std::nullopt;
  return Admitted{*std::move(deployment), *std::move(turn)};
}

std::vector<WorkerRecord> Coordinator::ListWorkers() const {
  absl::MutexLock lock(&mu_);
  return registry_.List();
}

absl::StatusOr<WorkerRecord> Coordinator::GetWorker(const WorkerId& id) const {
  absl::MutexLock lock(&mu_);
  const WorkerRecord* worker = registry_.Find(id);
  if (worker == nullptr) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("expected a worker that has registered, ",
                                  "got: ", ResourceName(id)),
                     {.reason = "WORKER_NOT_FOUND",
                      .metadata = {{"resource", ResourceName(id)}}});
  }
  return *worker;
}

void Coordinator::Tick() {
  std::vector<Departure> departures;
  {
    absl::MutexLock lock(&mu_);
    departures = registry_.Expire(Now());
    UpdateWorkerMetrics();
  }
  HandleDepartures(departures);
  PollOperations();
  PublishAll();
}

void Coordinator::EndCalls(const std::string& reason) {
  std::vector<DeploymentPtr> deployments;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [unused, deployment] : deployments_) {
      if (deployment != nullptr) {
        deployments.push_back(deployment);
      }
    }
  }
  for (const DeploymentPtr& deployment : deployments) {
    rendezvous_.Close(deployment->id, deployment->gang->epoch(), reason);
    deployment->gang->Break(reason);
  }
}

absl::StatusOr<Coordinator::DeploymentPtr> Coordinator::Find(
    const DeploymentId& id) const {
  absl::MutexLock lock(&mu_);
  const auto it = deployments_.find(id);
  if (it == deployments_.end() || it->second == nullptr) {
    return DeploymentNotFound(id);
  }
  return it->second;
}

absl::StatusOr<Coordinator::Admitted> Coordinator::Admit(
    const DeploymentId& id, GangEpoch epoch, const CallContext& context,
    ActionQueue::Kind kind) const {
  SP_ASSIGN_OR_RETURN(DeploymentPtr deployment, Find(id));
  {
    absl::MutexLock lock(&deployment->mu);
    SP_RETURN_IF_ERROR(deployment->state.CheckEpoch(epoch));
  }
  SP_ASSIGN_OR_RETURN(
      ActionQueue::Turn turn,
      deployment->queue.Wait(kind, context.deadline, context.cancelled));
  return Admitted{std::move(deployment), std::move(turn)};
}

void Coordinator::HandleDepartures(const std::vector<Departure>& departures) {
  for (const Departure& departure : departures) {
    AddMetric(Counter::kWorkerLost,
              {absl::AsciiStrToLower(ToString(departure.state))});
    PublishWorker(departure.worker);
    bulletin_.Tell(departure.state == WorkerState::kRetired
                       ? EventSeverity::kNormal
                       : EventSeverity::kWarning,
                   absl::StrCat("WORKER_", ToString(departure.state)),
                   ResourceName(departure.worker), departure.reason);
    if (!departure.seat.has_value()) {
      continue;
    }
    const absl::StatusOr<DeploymentPtr> deployment =
        Find(departure.seat->deployment);
    if (!deployment.ok() ||
        (*deployment)->gang->epoch() != departure.seat->epoch) {
      continue;
    }
    (*deployment)->gang->Forget(departure.seat->rank);
    absl::StatusOr<std::vector<DeploymentAction>> actions;
    {
      absl::MutexLock lock(&(*deployment)->mu);
      actions =
          (*deployment)
              ->state.Apply(WorkerGone{departure.seat->rank, departure.reason},
                            Now());
    }
    if (actions.ok()) {
      Perform(*deployment, *actions);
    }
    Publish(*deployment);
  }
}

absl::Status Coordinator::HandleFailure(const DeploymentPtr& deployment,
                                        const CallFailure& failure,
                                        StepNumber step) {
  std::vector<Departure> departures;
  {
    absl::MutexLock lock(&mu_);
    for (const int rank : failure.lost) {
      const Gang::Member& member = deployment->gang->member(rank);
      const std::vector<Departure> lost = registry_.MarkLost(
          member.worker, member.incarnation, "its connection broke", Now());
      departures.insert(departures.end(), lost.begin(), lost.end());
    }
    UpdateWorkerMetrics();
  }
  HandleDepartures(departures);
  absl::StatusOr<std::vector<DeploymentAction>> actions;
  {
    absl::MutexLock lock(&deployment->mu);
    actions = deployment->state.Apply(
        CallFailed{failure.rank, failure.status, failure.health, step}, Now());
    if (deployment->state.steps_under_way() == 0) {
      deployment->accepted_kind = deployment->optimizer_kind;
    }
  }
  if (actions.ok()) {
    Perform(deployment, *actions);
  }
  Publish(deployment);
  return failure.status;
}

void Coordinator::Perform(const DeploymentPtr& deployment,
                          const std::vector<DeploymentAction>& actions) {
  for (const DeploymentAction& action : actions) {
    if (const auto* abort = std::get_if<AbortPeers>(&action)) {
      deployment->gang->Break(
          absl::StrCat(ResourceName(deployment->id), ": ", abort->reason));
      rendezvous_.Close(deployment->id, deployment->gang->epoch(),
                        abort->reason);
    } else if (std::holds_alternative<Leave>(action)) {
      background_.Add([this, deployment] { LeaveGang(deployment); });
    } else if (std::holds_alternative<Abandon>(action)) {
      deployment->gang->TryAll(
          {.timeout = options_.call_timeout},
          [](int, WorkerClient& client, const GangRef& gang,
             const CallOptions& options, WorkerClient::Done done) {
            client.Commit(gang, {.abandon = true}, options, std::move(done));
          });
    }
  }
}

void Coordinator::LeaveGang(const DeploymentPtr& deployment) {
  Gang& gang = *deployment->gang;
  rendezvous_.Close(deployment->id, gang.epoch(), "the gang was dissolved");
  gang.TryAll({.timeout = kLeaveTimeout},
              [](int, WorkerClient& client, const GangRef& ref,
                 const CallOptions& options, WorkerClient::Done done) {
                client.LeaveGang(ref, options, std::move(done));
              });
  {
    absl::MutexLock lock(&mu_);
    for (int rank = 0; rank < gang.size(); ++rank) {
      registry_.Release(gang.member(rank).worker, gang.epoch());
    }
  }
  for (int rank = 0; rank < gang.size(); ++rank) {
    PublishWorker(gang.member(rank).worker);
  }
}

void Coordinator::UpdateWorkerMetrics() {
  if (options_.metrics == nullptr) {
    return;
  }
  for (const auto& [state, count] : registry_.CountByState()) {
    options_.metrics->Set(Gauge::kWorkers,
                          {absl::AsciiStrToLower(ToString(state))}, count);
  }
}

void Coordinator::AddMetric(Counter counter, LabelValues labels,
                            double amount) {
  if (options_.metrics != nullptr) {
    options_.metrics->Add(counter, labels, amount);
  }
}

}  // namespace shardplane
