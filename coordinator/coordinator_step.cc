// Forward, and the numbered actions.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "coordinator/digest.h"
#include "coordinator/run_outcomes.h"
#include "coordinator/step_inputs.h"
#include "coordinator/step_optimizer.h"

namespace shardplane {
namespace {

// Outputs up to this size travel in the answer, up to a total.
constexpr int64_t kMaxInlineOutput = int64_t{256} << 10;
constexpr int64_t kMaxInlineOutputs = int64_t{2} << 20;

std::string PhaseOf(const StepAction& action) {
  static constexpr const char* kPhases[] = {"train", "update", "load_state",
                                            "reset_optimizer"};
  return kPhases[action.index()];
}

std::vector<std::string> UploadsOf(const StepAction& action) {
  if (const auto* train = std::get_if<TrainAction>(&action)) {
    std::vector<std::string> ids = UploadsOf(train->inputs);
    const std::vector<std::string> targets = UploadsOf(train->targets);
    ids.insert(ids.end(), targets.begin(), targets.end());
    return ids;
  }
  std::vector<std::string> ids;
  if (const auto* load = std::get_if<LoadStateAction>(&action)) {
    for (const LoadEntry& entry : load->entries) {
      ids.push_back(entry.upload);
    }
  }
  return ids;
}

// The digest of the request and of the contents that it names.
std::string FullDigest(const StepCall& call, const UploadBook& uploads) {
  std::string text = call.digest;
  for (const std::string& id : UploadsOf(call.action)) {
    absl::StrAppend(&text, "\n", id, "=", uploads.Fingerprint(id));
  }
  return Digest(text);
}

// What Commit is told, beside the number.
struct ToCommitCall {
  CommitCall call;
  void operator()(const TrainAction& action) {
    call.optimizer = action.optimizer;
    call.clip_norm = action.clip_norm;
  }
  void operator()(const UpdateAction& action) {
    call.optimizer = action.optimizer;
    call.clip_norm = action.clip_norm;
  }
  void operator()(const LoadStateAction& action) {
    call.load_state = action.entries;
  }
  void operator()(const ResetOptimizerAction&) { call.reset_optimizer = true; }
};

// The optimizer that an action applies; nullptr: none.
const OptimizerOptions* OptimizerOf(const StepAction& action) {
  if (const auto* train = std::get_if<TrainAction>(&action)) {
    return train->optimizer.has_value() ? &*train->optimizer : nullptr;
  }
  const auto* update = std::get_if<UpdateAction>(&action);
  return update == nullptr ? nullptr : &update->optimizer;
}

// Whether an update needs the norm of the gradients and no run tells it.
bool NeedsNormAlone(const StepAction& action) {
  const auto* update = std::get_if<UpdateAction>(&action);
  return update != nullptr && update->clip_norm.has_value();
}

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

// Entries under the canonical names, the last one of a tied weight counts.
void Canonicalize(const Deployment& deployment,
                  std::vector<LoadEntry>* entries) {
  for (LoadEntry& entry : *entries) {
    const auto found = deployment.FindParameter(entry.fqn, "fqn");
    entry.fqn = found.ok() ? found->parameter->fqn : entry.fqn;
  }
}

absl::Status NoLoss(const DeploymentProgram& program) {
  const std::string name = ResourceName(program.deployment, program.id);
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("train.program: expected a program with a loss, got: ",
                   name),
      {.reason = "PROGRAM_WITHOUT_LOSS",
       .metadata = {
           {"field", "train.program"},
           {"subject", name},
           {"remedy", "create a program whose signature has a loss"}}});
}

// The program of a call, which must be one of the deployment's own.
absl::StatusOr<std::shared_ptr<const DeploymentProgram>> FindProgram(
    Deployment& deployment, const ProgramName& name, const std::string& field) {
  if (name.deployment == deployment.id) {
    return deployment.FindProgram(name.program);
  }
  const std::string expected =
      absl::StrCat("a program of ", ResourceName(deployment.id));
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected ", expected, ", got: ",
                                ResourceName(name.deployment, name.program)),
                   {.reason = "PROGRAM_OF_ANOTHER_DEPLOYMENT",
                    .metadata = {{"field", field}, {"expected", expected}}});
}

}  // namespace

std::optional<CallFailure> Coordinator::RunOnAll(
    Deployment& deployment, const RunCall& call,
    const DeploymentProgram* program, std::vector<RunOutcome>* outcomes) {
  outcomes->resize(deployment.gang->size());
  {
    // The workers take uploads away when they run, whatever comes of it.
    absl::MutexLock lock(&deployment.mu);
    deployment.uploads.Use(UploadsOf(call.inputs));
  }
  return deployment.gang->CallAll(
      Spec(options_.run_timeout),
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
  {
    absl::MutexLock lock(&deployment.mu);
    SP_RETURN_IF_ERROR(deployment.state.CheckReady("forward"));
  }
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<const DeploymentProgram> program,
                      FindProgram(deployment, call.program, "program"));
  RunCall run{.program = program->id, .inputs = call.inputs};
  {
    absl::MutexLock lock(&deployment.mu);
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

absl::StatusOr<StepAnswer> Coordinator::Step(const StepCall& call,
                                             const CallContext& context) {
  SP_ASSIGN_OR_RETURN(const Admitted admitted,
                      Admit(call.deployment, call.epoch, context));
  Deployment& deployment = *admitted.deployment;
  std::string digest;
  {
    absl::MutexLock lock(&deployment.mu);
    digest = FullDigest(call, deployment.uploads);
    SP_ASSIGN_OR_RETURN(const std::optional<StepAnswer> recorded,
                        deployment.state.CheckTurn(call.number, digest));
    if (recorded.has_value()) {
      return *recorded;
    }
  }
  const absl::Time start = Now();
  absl::StatusOr<StepAnswer> answer =
      NewStep(admitted.deployment, call, digest);
  const std::string phase = PhaseOf(call.action);
  AddMetric(Counter::kSteps, {phase, answer.ok() ? "ok" : "failed"});
  if (options_.metrics != nullptr && answer.ok()) {
    options_.metrics->Observe(Histogram::kStepDuration, {phase}, Now() - start);
  }
  return answer;
}

absl::StatusOr<StepAnswer> Coordinator::GetStep(const DeploymentId& id,
                                                StepNumber number) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  absl::MutexLock lock(&deployment->mu);
  return deployment->state.FindAnswer(number);
}

absl::StatusOr<StepAnswer> Coordinator::NewStep(const DeploymentPtr& deployment,
                                                const StepCall& call,
                                                const std::string& digest) {
  const auto* train = std::get_if<TrainAction>(&call.action);
  const OptimizerOptions* optimizer = OptimizerOf(call.action);
  std::shared_ptr<const DeploymentProgram> program;
  if (train != nullptr) {
    SP_ASSIGN_OR_RETURN(
        program, FindProgram(*deployment, train->program, "train.program"));
    if (program->program.loss < 0) {
      return NoLoss(*program);
    }
  }
  {
    absl::MutexLock lock(&deployment->mu);
    if (train != nullptr) {
      SP_RETURN_IF_ERROR(CheckInputs(*program, train->inputs, train->targets,
                                     "train.", deployment->uploads));
    }
    if (const auto* load = std::get_if<LoadStateAction>(&call.action)) {
      SP_RETURN_IF_ERROR(CheckLoadState(*deployment, *load));
    }
    if (optimizer != nullptr) {
      SP_RETURN_IF_ERROR(CheckOptimizer(
          *optimizer, deployment->spec->module, deployment->optimizer_kind,
          train != nullptr ? "train.optimizer" : "update.optimizer"));
    }
    SP_RETURN_IF_ERROR(
        deployment->state
            .Apply(
                StepRequested{call.number, digest,
                              train != nullptr || NeedsNormAlone(call.action)},
                Now())
            .status());
  }
  const absl::Time start = Now();
  StepAnswer answer{.number = call.number, .epoch = deployment->gang->epoch()};
  if (train != nullptr) {
    SP_ASSIGN_OR_RETURN(answer, RunTrain(deployment, call, *program));
  } else if (NeedsNormAlone(call.action)) {
    SP_ASSIGN_OR_RETURN(answer, RunNorm(deployment, call));
  }
  const absl::Time ran = Now();
  SP_RETURN_IF_ERROR(CommitStep(deployment, call));
  answer.timing.commit_call = absl::ToDoubleSeconds(Now() - ran);
  answer.seconds = absl::ToDoubleSeconds(Now() - start);
  absl::MutexLock lock(&deployment->mu);
  deployment->last_run = train != nullptr ? program : deployment->last_run;
  if (optimizer != nullptr) {
    deployment->optimizer_kind = KindName(optimizer->values);
  } else if (std::holds_alternative<ResetOptimizerAction>(call.action)) {
    deployment->optimizer_kind.clear();
  }
  // Uploads of earlier steps are no longer asked for; those of this one are
  // kept for a repeated call.
  deployment->uploads.ForgetUsed(UploadsOf(call.action));
  SP_RETURN_IF_ERROR(
      deployment->state.Apply(CommitDone{answer}, Now()).status());
  return answer;
}

absl::StatusOr<StepAnswer> Coordinator::RunTrain(
    const DeploymentPtr& deployment, const StepCall& call,
    const DeploymentProgram& program) {
  const auto& train = std::get<TrainAction>(call.action);
  RunCall run{.step = call.number,
              .program = program.id,
              .mode = RunMode::kTrain,
              .inputs = train.inputs,
              .accumulate = train.accumulate,
              .random_step = call.number,
              .gradient_norm = train.clip_norm.has_value()};
  run.inputs.insert(run.inputs.end(), train.targets.begin(),
                    train.targets.end());
  return RunStep(deployment, run, &program);
}

absl::StatusOr<StepAnswer> Coordinator::RunNorm(const DeploymentPtr& deployment,
                                                const StepCall& call) {
  return RunStep(deployment,
                 {.step = call.number,
                  .mode = RunMode::kNorm,
                  .random_step = call.number,
                  .gradient_norm = true},
                 nullptr);
}

absl::StatusOr<StepAnswer> Coordinator::RunStep(
    const DeploymentPtr& deployment, const RunCall& run,
    const DeploymentProgram* program) {
  std::vector<RunOutcome> outcomes;
  std::optional<CallFailure> failure =
      RunOnAll(*deployment, run, program, &outcomes);
  if (failure.has_value()) {
    return HandleFailure(deployment, *failure);
  }
  StepAnswer answer{.number = run.step, .epoch = deployment->gang->epoch()};
  if (const absl::Status status = Assemble(run, program, outcomes, &answer);
      !status.ok()) {
    return HandleFailure(deployment, {.status = status});
  }
  absl::MutexLock lock(&deployment->mu);
  SP_RETURN_IF_ERROR(deployment->state.Apply(RunDone{}, Now()).status());
  return answer;
}

absl::Status Coordinator::CommitStep(const DeploymentPtr& deployment,
                                     const StepCall& call) {
  ToCommitCall to_commit{{.step = call.number}};
  std::visit(to_commit, call.action);
  Canonicalize(*deployment, &to_commit.call.load_state);
  {
    absl::MutexLock lock(&deployment->mu);
    deployment->uploads.Use(UploadsOf(call.action));
  }
  std::optional<CallFailure> failure = deployment->gang->CallAll(
      Spec(options_.run_timeout),
      [&](int, WorkerClient& client, const GangRef& ref,
          const CallOptions& options, WorkerClient::Done done) {
        client.Commit(ref, to_commit.call, options, std::move(done));
      });
  if (!failure.has_value()) {
    return absl::OkStatus();
  }
  if (failure->succeeded > 0) {
    // Some ranks have the update and some have not: no way back.
    failure->health = GangHealth::kBroken;
  }
  return HandleFailure(deployment, *failure);
}

}  // namespace shardplane
