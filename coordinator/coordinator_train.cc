// Training steps: several may be under way.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "coordinator/run_outcomes.h"
#include "coordinator/step_action.h"
#include "coordinator/step_inputs.h"
#include "coordinator/step_optimizer.h"

namespace shardplane {
namespace {

absl::Status StillUnderWay() {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   "the first call of this step is still running",
                   {.reason = "DEPLOYMENT_BUSY"});
}

// Waits until the step of that number, which was accepted before, is over.
absl::Status AwaitTwin(Deployment& deployment, StepNumber number,
                       absl::Time deadline) {
  absl::MutexLock lock(&deployment.mu);
  const uint64_t drops = deployment.state.drops();
  const auto over = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return deployment.state.drops() != drops ||
           !deployment.state.IsUnderWay(number);
  };
  return deployment.mu.AwaitWithDeadline(absl::Condition(&over), deadline)
             ? absl::OkStatus()
             : StillUnderWay();
}

// Waits until the next outcome is that of `step`. False: it was dropped.
bool AwaitOldest(const TrainUnderWay& step) {
  Deployment& deployment = *step.deployment;
  absl::MutexLock lock(&deployment.mu);
  const auto oldest = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return deployment.state.drops() != step.drops ||
           deployment.state.IsOldestUnderWay(step.number);
  };
  deployment.mu.Await(absl::Condition(&oldest));
  return deployment.state.drops() == step.drops;
}

// The parts of a call that the ranks are told; `call` is left without tensors.
std::shared_ptr<const TrainStep> MakeTrainStep(StepCall& call) {
  CommitCall commit = ToCommitCall(call.number, call.action);
  auto& train = std::get<TrainAction>(call.action);
  RunCall run{.step = call.number,
              .program = train.program.program,
              .mode = RunMode::kTrain,
              .inputs = std::move(train.inputs),
              .accumulate = train.accumulate,
              .random_step = call.number,
              .gradient_norm = train.clip_norm.has_value(),
              .timeline = train.timeline,
              .traceparent = call.traceparent};
  std::move(train.targets.begin(), train.targets.end(),
            std::back_inserter(run.inputs));
  train.targets.clear();
  return std::make_shared<const TrainStep>(std::move(run), std::move(commit));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainUnderWay>> Coordinator::BeginTrain(
    StepCall call, const CallContext& context) {
  const absl::Time received = Now();
  SP_ASSIGN_OR_RETURN(
      Admitted admitted,
      Admit(call.deployment, call.epoch, context, ActionQueue::Kind::kStep));
  Deployment& deployment = *admitted.deployment;
  {
    absl::MutexLock lock(&deployment.mu);
    call.digest = FullDigest(call, deployment.uploads);
  }
  auto step = std::make_unique<TrainUnderWay>(
      TrainUnderWay{.deployment = std::move(admitted.deployment),
                    .turn = std::move(admitted.turn),
                    .number = call.number,
                    .received = received,
                    .traceparent = call.traceparent});
  while (true) {
    SP_ASSIGN_OR_RETURN(const DeploymentAction action, TryBegin(call, *step));
    if (!std::holds_alternative<AwaitStep>(action)) {
      return step;
    }
    SP_RETURN_IF_ERROR(AwaitTwin(deployment, call.number, context.deadline));
  }
}

absl::StatusOr<DeploymentAction> Coordinator::TryBegin(StepCall& call,
                                                       TrainUnderWay& step) {
  Deployment& deployment = *step.deployment;
  absl::MutexLock sending(&deployment.sending);
  {
    absl::MutexLock lock(&deployment.mu);
    SP_ASSIGN_OR_RETURN(step.recorded,
                        deployment.state.CheckTurn(call.number, call.digest));
    if (step.recorded.has_value()) {
      return GiveAnswer{*step.recorded};
    }
    if (deployment.state.IsUnderWay(call.number)) {
      return AwaitStep{};
    }
    if (const absl::Status status = AcceptTrain(deployment, call, step);
        !status.ok()) {
      CountStep("train", status, absl::ZeroDuration());
      return status;
    }
  }
  TellRanks(call, step);
  return Train{};
}

absl::Status Coordinator::AcceptTrain(Deployment& deployment,
                                      const StepCall& call,
                                      TrainUnderWay& step) {
  const auto& train = std::get<TrainAction>(call.action);
  SP_ASSIGN_OR_RETURN(step.program,
                      FindProgram(deployment, train.program, "train.program"));
  SP_RETURN_IF_ERROR(CheckLoss(*step.program, train));
  SP_RETURN_IF_ERROR(CheckInputs(*step.program, train.inputs, train.targets,
                                 "train.", deployment.uploads));
  if (train.optimizer.has_value()) {
    SP_RETURN_IF_ERROR(CheckOptimizer(*train.optimizer, deployment.spec->module,
                                      deployment.accepted_kind,
                                      "train.optimizer"));
  }
  SP_RETURN_IF_ERROR(
      deployment.state
          .Apply(StepRequested{call.number, call.digest, StepKind::kTrain},
                 Now())
          .status());
  if (train.optimizer.has_value()) {
    deployment.accepted_kind = KindName(train.optimizer->values);
  }
  deployment.uploads.Use(UploadsOf(call.action), call.number);
  step.drops = deployment.state.drops();
  return absl::OkStatus();
}

void Coordinator::TellRanks(StepCall& call, TrainUnderWay& step) {
  Gang& gang = *step.deployment->gang;
  step.begin = Now();
  step.step = MakeTrainStep(call);
  step.action = std::move(std::get<TrainAction>(call.action));
  step.outcomes.resize(gang.size());
  step.fan_out = gang.Begin(
      Spec(options_.run_timeout),
      [&](int rank, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        StepOutcome* const mine = &step.outcomes[rank];
        client.Step(ref, step.step,
                    ExpectedHash(step.step->run(), step.program.get(),
                                 step.deployment->spec->mesh, rank),
                    options, [mine, done](absl::StatusOr<StepOutcome> outcome) {
                      const absl::Status status = outcome.status();
                      if (outcome.ok()) {
                        *mine = *std::move(outcome);
                      }
                      done(status);
                    });
      });
  step.told = Now();
  if (options_.metrics != nullptr) {
    options_.metrics->Observe(Histogram::kStepDispatch, {},
                              step.told - step.begin);
  }
}

bool Coordinator::IsOver(const TrainUnderWay& step) {
  return step.recorded.has_value() ||
         step.deployment->gang->IsOver(*step.fan_out);
}

absl::StatusOr<StepAnswer> Coordinator::FinishTrain(
    std::unique_ptr<TrainUnderWay> step) {
  if (step->recorded.has_value()) {
    return *step->recorded;
  }
  const bool dropped = !AwaitOldest(*step);
  Deployment& deployment = *step->deployment;
  const std::optional<CallFailure> failure =
      deployment.gang->Finish(std::move(step->fan_out));
  if (dropped) {
    return FinishDropped(*step, failure);
  }
  absl::Time start;
  const absl::Time end = Now();
  {
    absl::MutexLock lock(&deployment.mu);
    start = std::max(step->begin, deployment.last_outcome);
    deployment.last_outcome = end;
  }
  absl::StatusOr<StepAnswer> answer = AnswerOf(*step, failure);
  if (answer.ok()) {
    answer->seconds = absl::ToDoubleSeconds(end - start);
    SP_RETURN_IF_ERROR(RecordTrain(*step, *answer));
    ObserveOverhead(*answer);
  }
  CountStep("train", answer.status(), end - start);
  if (!answer.ok()) {
    TellOfFailure(step->deployment, step->number, answer.status());
  }
  return answer;
}

absl::StatusOr<StepAnswer> Coordinator::AnswerOf(
    TrainUnderWay& step, std::optional<CallFailure> failure) {
  StepAnswer answer{.number = step.number,
                    .epoch = step.deployment->gang->epoch()};
  if (!failure.has_value()) {
    std::vector<RunOutcome> runs;
    for (StepOutcome& outcome : step.outcomes) {
      answer.timing.commit_call =
          std::max(answer.timing.commit_call, outcome.commit_seconds);
      runs.push_back(std::move(outcome.run));
    }
    const absl::Status status =
        Assemble(step.step->run(), step.program.get(), runs, &answer);
    if (status.ok()) {
      return answer;
    }
    // All ranks have committed what they cannot have agreed on.
    failure = CallFailure{.status = status, .health = GangHealth::kBroken};
  } else if (failure->succeeded > 0) {
    // Some ranks have the update and some have not: no way back.
    failure->health = GangHealth::kBroken;
  }
  return HandleFailure(step.deployment, *failure, step.number);
}

void Coordinator::ObserveOverhead(const StepAnswer& answer) {
  if (options_.metrics == nullptr || answer.seconds <= 0) return;
  const double worked = answer.timing.run + answer.timing.commit_call;
  options_.metrics->Observe(Histogram::kStepOverhead, {},
                            std::clamp(1 - worked / answer.seconds, 0.0, 1.0));
}

absl::Status Coordinator::RecordTrain(const TrainUnderWay& step,
                                      const StepAnswer& answer) {
  {
    absl::MutexLock lock(&step.deployment->mu);
    step.deployment->last_run = step.program;
    step.deployment->history.Mark({.number = step.number,
                                   .received = step.received,
                                   .queue = step.begin - step.received,
                                   .dispatch = step.told - step.begin,
                                   .total = Now() - step.received,
                                   .traceparent = step.traceparent,
                                   .program = step.program->id});
  }
  return Record(*step.deployment, step.action, answer);
}

// The ranks refused it by its number, unless something worse has happened.
absl::Status Coordinator::FinishDropped(
    const TrainUnderWay& step, const std::optional<CallFailure>& failure) {
  if (!failure.has_value() || failure->succeeded > 0) {
    return HandleFailure(
        step.deployment,
        {.status = absl::InternalError(absl::StrCat(
             "step ", step.number.value,
             ": expected ranks that refuse it, since one before it has "
             "failed, got: one that ran it")),
         .health = GangHealth::kBroken});
  }
  if (failure->ended || !failure->lost.empty()) {
    return HandleFailure(step.deployment, *failure);
  }
  absl::MutexLock lock(&step.deployment->mu);
  return step.deployment->state.CheckReady("step").ok()
             ? step.deployment->state.Dropped(step.number)
             : failure->status;
}

}  // namespace shardplane
