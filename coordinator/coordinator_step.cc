// Forward, and the numbered actions that run alone; training steps are in
// coordinator_train.cc.
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

// Outputs up to this size travel in the answer, up to a total.
constexpr int64_t kMaxInlineOutput = int64_t{256} << 10;
constexpr int64_t kMaxInlineOutputs = int64_t{2} << 20;

absl::Status CheckLoadState(Deployment& deployment,
                            const LoadStateAction& action)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(deployment.mu) {
  for (size_t i = 0; i < action.entries.size(); ++i) {
    const std::string field = absl::StrCat("load_state.entries[", i, "]");
    SP_ASSIGN_OR_RETURN(const Deployment::CanonicalParameter found,
                        deployment.FindParameter(action.entries[i].fqn,
                                                 absl::StrCat(field, ".fqn")));
    SP_RETURN_IF_ERROR(
        WithMetadata(deployment.uploads.Check(action.entries[i].upload,
                                              found.parameter->type,
                                              absl::StrCat(field, ".upload")),
                     "fqn", action.entries[i].fqn));
  }
  return absl::OkStatus();
}

absl::Status CheckChangesNothing(const DeploymentProgram& program) {
  if (!ChangesBuffers(program.program)) return absl::OkStatus();
  const std::string name = ResourceName(program.deployment, program.id);
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("program: expected one that changes nothing, got: ", name,
                   ", which changes buffers"),
      {.reason = "PROGRAM_CHANGES_BUFFERS",
       .metadata = {{"field", "program"},
                    {"subject", name},
                    {"remedy", "send it as a step, with a number"}}});
}

// Entries under the canonical names, the last one of a tied weight counts.
void Canonicalize(const Deployment& deployment,
                  std::vector<LoadEntry>* entries) {
  for (LoadEntry& entry : *entries) {
    const auto found = deployment.FindParameter(entry.fqn, "fqn");
    entry.fqn = found.ok() ? found->parameter->fqn : entry.fqn;
  }
}

}  // namespace

std::optional<CallFailure> Coordinator::RunOnAll(
    Deployment& deployment, const RunCall& call,
    const DeploymentProgram* program, std::vector<RunOutcome>* outcomes) {
  outcomes->resize(deployment.gang->size());
  {
    // The workers take uploads away when they run, whatever comes of it.
    absl::MutexLock lock(&deployment.mu);
    deployment.uploads.Use(UploadsOf(call.inputs), call.step);
  }
  return deployment.gang->CallAll(
      Spec(options_.run_timeout, call.traceparent),
      [&](int rank, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        RunCall mine = call;
        mine.expected_hash =
            ExpectedHash(call, program, deployment.spec->mesh, rank);
        client.Run(ref, mine, options,
                   [outcomes, rank, done](absl::StatusOr<RunOutcome> outcome) {
                     const absl::Status status = outcome.status();
                     if (outcome.ok()) {
                       (*outcomes)[rank] = *std::move(outcome);
                     }
                     done(status);
                   });
      });
}

absl::StatusOr<ForwardAnswer> Coordinator::Forward(const ForwardCall& call,
                                                   const CallContext& context) {
  SP_ASSIGN_OR_RETURN(const Admitted admitted,
                      Admit(call.deployment, call.epoch, context));
  Deployment& deployment = *admitted.deployment;
  const absl::Time start = Now();
  std::shared_ptr<const DeploymentProgram> program;
  RunCall run{.program = call.program.program,
              .inputs = call.inputs,
              .traceparent = context.traceparent};
  {
    absl::MutexLock lock(&deployment.mu);
    SP_RETURN_IF_ERROR(deployment.state.CheckReady("forward"));
    SP_ASSIGN_OR_RETURN(program,
                        FindProgram(deployment, call.program, "program"));
    SP_RETURN_IF_ERROR(CheckChangesNothing(*program));
    SP_RETURN_IF_ERROR(
        CheckInputs(*program, call.inputs, {}, "", deployment.uploads));
    run.random_step = StepNumber{deployment.state.last_step().value + 1};
  }
  std::vector<RunOutcome> outcomes;
  const std::optional<CallFailure> failure =
      RunOnAll(deployment, run, program.get(), &outcomes);
  AddMetric(Counter::kSteps,
            {"forward", failure.has_value() ? "failed" : "ok"});
  if (failure.has_value()) {
    return HandleFailure(admitted.deployment, *failure);
  }
  {
    absl::MutexLock lock(&deployment.mu);
    deployment.last_run = program;
  }
  ForwardAnswer answer{.collectives = outcomes[0].collectives};
  for (const RunOutcome& outcome : outcomes) {
    answer.peak_run_bytes.push_back(outcome.peak_bytes);
  }
  int64_t total = 0;
  for (size_t i = 0; i < program->program.outputs.size(); ++i) {
    const Value& value = program->program.values[program->program.outputs[i]];
    ForwardOutput output{value.type, value.spec, std::nullopt};
    const int64_t bytes = ByteSize(value.type);
    if (bytes <= kMaxInlineOutput && total + bytes <= kMaxInlineOutputs) {
      total += bytes;
      SP_ASSIGN_OR_RETURN(
          HostTensor tensor,
          ReadGlobal(admitted.deployment, OutputKey{static_cast<int>(i)},
                     value.type, value.spec));
      output.bytes = std::move(tensor.bytes);
    }
    answer.outputs.push_back(std::move(output));
  }
  if (options_.metrics != nullptr) {
    options_.metrics->Observe(Histogram::kStepDuration, {"forward"},
                              Now() - start);
  }
  return answer;
}

absl::StatusOr<StepAnswer> Coordinator::Step(StepCall call,
                                             const CallContext& context) {
  if (std::holds_alternative<TrainAction>(call.action)) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<TrainUnderWay> step,
                        BeginTrain(std::move(call), context));
    return FinishTrain(std::move(step));
  }
  SP_ASSIGN_OR_RETURN(const Admitted admitted,
                      Admit(call.deployment, call.epoch, context));
  Deployment& deployment = *admitted.deployment;
  {
    absl::MutexLock lock(&deployment.mu);
    call.digest = FullDigest(call, deployment.uploads);
    SP_ASSIGN_OR_RETURN(const std::optional<StepAnswer> recorded,
                        deployment.state.CheckTurn(call.number, call.digest));
    if (recorded.has_value()) {
      return *recorded;
    }
  }
  const absl::Time start = Now();
  absl::StatusOr<StepAnswer> answer = NewStep(admitted.deployment, call);
  CountStep(PhaseOf(call.action), answer.status(), Now() - start);
  if (!answer.ok()) {
    TellOfFailure(admitted.deployment, call.number, answer.status());
  }
  return answer;
}

void Coordinator::TellOfFailure(const DeploymentPtr& deployment,
                                StepNumber number, const absl::Status& status) {
  bulletin_.Tell(EventSeverity::kWarning, "STEP_FAILED",
                 ResourceName(deployment->id),
                 absl::StrCat("step ", number.value, ": ", status.message()));
}

void Coordinator::CountStep(absl::string_view phase, const absl::Status& status,
                            absl::Duration duration) {
  AddMetric(Counter::kSteps, {phase, status.ok() ? "ok" : "failed"});
  if (options_.metrics != nullptr && status.ok()) {
    options_.metrics->Observe(Histogram::kStepDuration, {phase}, duration);
  }
}

absl::StatusOr<StepAnswer> Coordinator::GetStep(const DeploymentId& id,
                                                StepNumber number) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  absl::MutexLock lock(&deployment->mu);
  return deployment->state.FindAnswer(number);
}

absl::Status Coordinator::AcceptAlone(Deployment& deployment,
                                      const StepCall& call) {
  absl::MutexLock lock(&deployment.mu);
  if (const auto* load = std::get_if<LoadStateAction>(&call.action)) {
    SP_RETURN_IF_ERROR(CheckLoadState(deployment, *load));
  }
  if (const OptimizerOptions* optimizer = OptimizerOf(call.action)) {
    SP_RETURN_IF_ERROR(CheckOptimizer(*optimizer, deployment.spec->module,
                                      deployment.optimizer_kind,
                                      "update.optimizer"));
  }
  const StepKind kind = NeedsNormAlone(call.action) ? StepKind::kNormAndCommit
                                                    : StepKind::kCommit;
  return deployment.state
      .Apply(StepRequested{call.number, call.digest, kind}, Now())
      .status();
}

absl::StatusOr<StepAnswer> Coordinator::NewStep(const DeploymentPtr& deployment,
                                                const StepCall& call) {
  SP_RETURN_IF_ERROR(AcceptAlone(*deployment, call));
  const absl::Time start = Now();
  StepAnswer answer{.number = call.number, .epoch = deployment->gang->epoch()};
  if (NeedsNormAlone(call.action)) {
    SP_ASSIGN_OR_RETURN(answer, RunNorm(deployment, call.number));
  }
  const absl::Time ran = Now();
  SP_RETURN_IF_ERROR(CommitStep(deployment, call));
  answer.timing.commit_call = absl::ToDoubleSeconds(Now() - ran);
  answer.seconds = absl::ToDoubleSeconds(Now() - start);
  SP_RETURN_IF_ERROR(Record(*deployment, call.action, answer));
  return answer;
}

absl::Status Coordinator::Record(Deployment& deployment,
                                 const StepAction& action,
                                 const StepAnswer& answer) {
  absl::MutexLock lock(&deployment.mu);
  if (const OptimizerOptions* optimizer = OptimizerOf(action)) {
    deployment.optimizer_kind = KindName(optimizer->values);
  } else if (std::holds_alternative<ResetOptimizerAction>(action)) {
    deployment.optimizer_kind.clear();
  }
  if (!std::holds_alternative<TrainAction>(action)) {
    deployment.accepted_kind = deployment.optimizer_kind;
  }
  const uint64_t number = answer.number.value;
  deployment.uploads.ForgetUsed(
      StepNumber{number > kKeptAnswers ? number - kKeptAnswers + 1 : 1});
  SP_RETURN_IF_ERROR(
      deployment.state.Apply(CommitDone{answer}, Now()).status());
  deployment.history.Add(answer);
  return absl::OkStatus();
}

absl::StatusOr<StepAnswer> Coordinator::RunNorm(const DeploymentPtr& deployment,
                                                StepNumber number) {
  const RunCall run{.step = number,
                    .mode = RunMode::kNorm,
                    .random_step = number,
                    .gradient_norm = true};
  std::vector<RunOutcome> outcomes;
  std::optional<CallFailure> failure =
      RunOnAll(*deployment, run, nullptr, &outcomes);
  if (failure.has_value()) {
    return HandleFailure(deployment, *failure, number);
  }
  StepAnswer answer{.number = number, .epoch = deployment->gang->epoch()};
  if (const absl::Status status = Assemble(run, nullptr, outcomes, &answer);
      !status.ok()) {
    return HandleFailure(deployment, {.status = status}, number);
  }
  absl::MutexLock lock(&deployment->mu);
  SP_RETURN_IF_ERROR(deployment->state.Apply(RunDone{}, Now()).status());
  return answer;
}

absl::Status Coordinator::CommitStep(const DeploymentPtr& deployment,
                                     const StepCall& call) {
  CommitCall commit = ToCommitCall(call.number, call.action);
  Canonicalize(*deployment, &commit.load_state);
  {
    absl::MutexLock lock(&deployment->mu);
    deployment->uploads.Use(UploadsOf(call.action), call.number);
  }
  std::optional<CallFailure> failure = deployment->gang->CallAll(
      Spec(options_.run_timeout),
      [&](int, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        client.Commit(ref, commit, options, std::move(done));
      });
  if (!failure.has_value()) {
    return absl::OkStatus();
  }
  if (failure->succeeded > 0) {
    // Some ranks have the update and some have not: no way back.
    failure->health = GangHealth::kBroken;
  }
  return HandleFailure(deployment, *failure, call.number);
}

}  // namespace shardplane
