#include "coordinator/step_action.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/digest.h"
#include "coordinator/step_inputs.h"

namespace shardplane {
namespace {

struct CommitCallOf {
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

}  // namespace

absl::string_view PhaseOf(const StepAction& action) {
  static constexpr absl::string_view kPhases[] = {
      "train", "update", "load_state", "reset_optimizer"};
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

std::string FullDigest(const StepCall& call, const UploadBook& uploads) {
  const std::vector<std::string> ids = UploadsOf(call.action);
  if (ids.empty()) {
    return call.digest;
  }
  std::string text = call.digest;
  for (const std::string& id : ids) {
    absl::StrAppend(&text, "\n", id, "=", uploads.Fingerprint(id));
  }
  return Digest(text);
}

CommitCall ToCommitCall(StepNumber number, const StepAction& action) {
  CommitCallOf to_commit{{.step = number}};
  std::visit(to_commit, action);
  return std::move(to_commit.call);
}

const OptimizerOptions* OptimizerOf(const StepAction& action) {
  if (const auto* train = std::get_if<TrainAction>(&action)) {
    return train->optimizer.has_value() ? &*train->optimizer : nullptr;
  }
  const auto* update = std::get_if<UpdateAction>(&action);
  return update == nullptr ? nullptr : &update->optimizer;
}

bool NeedsNormAlone(const StepAction& action) {
  const auto* update = std::get_if<UpdateAction>(&action);
  return update != nullptr && update->clip_norm.has_value();
}

namespace {

absl::Status CheckForwardAlone(const TrainAction& action) {
  const char* field = action.optimizer.has_value()   ? "train.optimizer"
                      : action.clip_norm.has_value() ? "train.clip_norm"
                      : action.accumulate            ? "train.accumulate"
                                                     : nullptr;
  if (field == nullptr) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(field,
                   ": expected none, since the program has no "
                   "loss: its step changes buffers alone; got: "
                   "one"),
      {.reason = "PROGRAM_WITHOUT_LOSS", .metadata = {{"field", field}}});
}

}  // namespace

absl::Status CheckLoss(const DeploymentProgram& program,
                       const TrainAction& action) {
  if (program.program.loss >= 0) return absl::OkStatus();
  if (ChangesBuffers(program.program)) return CheckForwardAlone(action);
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

absl::StatusOr<std::shared_ptr<const DeploymentProgram>> FindProgram(
    Deployment& deployment, const ProgramName& name, const std::string& field) {
  if (name.deployment == deployment.id) {
    return deployment.FindProgramLocked(name.program);
  }
  const std::string expected =
      absl::StrCat("a program of ", ResourceName(deployment.id));
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected ", expected, ", got: ",
                                ResourceName(name.deployment, name.program)),
                   {.reason = "PROGRAM_OF_ANOTHER_DEPLOYMENT",
                    .metadata = {{"field", field}, {"expected", expected}}});
}

}  // namespace shardplane
