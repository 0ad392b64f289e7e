// step, train, timeline.
#include <algorithm>
#include <fstream>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/input_values.h"
#include "client/shardctl/manifest.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/progress_bar.h"
#include "client/shardctl/resource_kind.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/step_trace.h"
#include "client/shardctl/text_values.h"
#include "client/train_stream.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr char kInputsHint[] =
    "--inputs FILE with {\"inputs\": [...], \"targets\": [...]}, or --random "
    "SEED";

absl::StatusOr<pb::Program> ProgramOf(const Invocation& invocation,
                                      Client& client,
                                      const pb::Deployment& deployment) {
  std::string name;
  if (invocation.Has("program")) {
    name = absl::StrCat(deployment.name(), "/programs/",
                        LastPart(invocation.Value("program")));
  } else if (deployment.programs_size() == 1) {
    name = deployment.programs(0);
  } else {
    return UsageError(
        absl::StrCat("which program? ", deployment.name(), " has ",
                     deployment.programs_size()),
        absl::StrCat("--program NAME; `shardctl get programs --deployment ",
                     LastPart(deployment.name()), "` lists them"));
  }
  return client.GetProgram(name);
}

// The values of a list of the file, for the program's inputs from `first` on.
absl::Status Take(const Document& file, const char* key,
                  const pb::Program& program, int* first,
                  google::protobuf::RepeatedPtrField<pb::Tensor>* tensors) {
  if (!file.contains(key)) return absl::OkStatus();
  for (const Document& values : file[key]) {
    if (*first >= program.inputs_size()) {
      return UsageError(absl::StrCat("expected ", program.inputs_size(),
                                     " inputs and targets in all, got: more"));
    }
    absl::StatusOr<pb::Tensor> tensor =
        TensorOf(program.inputs((*first)++).type(), values);
    if (!tensor.ok()) {
      return UsageError(absl::StrCat(key, "[", tensors->size(), "]: ",
                                     std::string(tensor.status().message())));
    }
    *tensors->Add() = *std::move(tensor);
  }
  return absl::OkStatus();
}

absl::Status InputsOfFile(const Invocation& invocation,
                          const pb::Program& program,
                          pb::StepRequest::Train* train) {
  absl::StatusOr<std::string> text =
      ReadText(invocation.Value("inputs"), invocation.environment().in);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<Document>> documents = ParseDocuments(*text);
  if (!documents.ok()) return documents.status();
  if (documents->size() != 1 || !documents->front().is_object()) {
    return UsageError("--inputs: expected an object", kInputsHint);
  }
  int first = 0;
  const Document& file = documents->front();
  absl::Status status =
      Take(file, "inputs", program, &first, train->mutable_inputs());
  status.Update(
      Take(file, "targets", program, &first, train->mutable_targets()));
  if (status.ok() && first != program.inputs_size()) {
    return UsageError(absl::StrCat("expected ", program.inputs_size(),
                                   " inputs and targets in all, got: ", first),
                      kInputsHint);
  }
  return status;
}

// A step's own random inputs: the same seed and number give the same ones.
absl::Status RandomInputs(const Invocation& invocation,
                          const pb::Program& program, uint64_t number,
                          pb::StepRequest::Train* train) {
  const absl::StatusOr<int64_t> seed = invocation.Number("random", 0);
  if (!seed.ok()) return seed.status();
  const absl::StatusOr<int64_t> targets = invocation.Number("targets", 0);
  if (!targets.ok()) return targets.status();
  const absl::StatusOr<int64_t> below =
      invocation.Number("integers-below", 2, 1);
  if (!below.ok()) return below.status();
  if (*targets > program.inputs_size()) {
    return UsageError(absl::StrCat("--targets: expected at most ",
                                   program.inputs_size(), ", got: ", *targets));
  }
  const int inputs = program.inputs_size() - static_cast<int>(*targets);
  const auto count = static_cast<uint64_t>(program.inputs_size());
  for (int i = 0; i < program.inputs_size(); ++i) {
    absl::StatusOr<pb::Tensor> tensor =
        RandomTensor(program.inputs(i).type(), static_cast<uint64_t>(*seed),
                     number * count + static_cast<uint64_t>(i), *below);
    if (!tensor.ok()) return tensor.status();
    *(i < inputs ? train->add_inputs() : train->add_targets()) =
        *std::move(tensor);
  }
  return absl::OkStatus();
}

absl::Status SetOptimizer(const Invocation& invocation,
                          pb::StepRequest::Train* train) {
  const std::string kind = invocation.Value("optimizer", "none");
  if (kind == "none") return absl::OkStatus();
  const bool is_sgd = kind == "sgd";
  const absl::StatusOr<double> lr =
      invocation.Real("lr", is_sgd ? 0.01 : 0.001);
  if (!lr.ok()) return lr.status();
  pb::Optimizer* optimizer = train->mutable_optimizer();
  if (is_sgd) {
    const absl::StatusOr<double> momentum = invocation.Real("momentum", 0);
    if (!momentum.ok()) return momentum.status();
    optimizer->mutable_sgd()->set_lr(*lr);
    optimizer->mutable_sgd()->set_momentum(*momentum);
  } else if (kind == "adam") {
    optimizer->mutable_adam()->set_lr(*lr);
  } else {
    optimizer->mutable_adamw()->set_lr(*lr);
  }
  if (invocation.Has("clip-norm")) {
    const absl::StatusOr<double> norm = invocation.Real("clip-norm", 0);
    if (!norm.ok()) return norm.status();
    train->set_clip_norm(*norm);
  }
  return absl::OkStatus();
}

// Makes the steps of one command.
struct StepMaker {
  const Invocation& invocation;
  pb::Deployment deployment;
  pb::Program program;

  absl::StatusOr<pb::StepRequest> Make(uint64_t number) const {
    pb::StepRequest request;
    request.set_deployment(deployment.name());
    request.set_step(number);
    request.set_epoch(deployment.epoch());
    pb::StepRequest::Train* train = request.mutable_train();
    train->set_program(program.name());
    if (invocation.Has("inputs") == invocation.Has("random")) {
      return UsageError("expected either --inputs or --random", kInputsHint);
    }
    absl::Status status =
        invocation.Has("inputs")
            ? InputsOfFile(invocation, program, train)
            : RandomInputs(invocation, program, number, train);
    status.Update(SetOptimizer(invocation, train));
    if (!status.ok()) return status;
    return request;
  }
};

absl::StatusOr<StepMaker> MakerFor(Invocation& invocation) {
  absl::StatusOr<std::string> name = DeploymentName(invocation.arguments()[0]);
  if (!name.ok()) return name.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  absl::StatusOr<pb::Deployment> deployment = (*client)->GetDeployment(*name);
  if (!deployment.ok()) return deployment.status();
  absl::StatusOr<pb::Program> program =
      ProgramOf(invocation, **client, *deployment);
  if (!program.ok()) return program.status();
  return StepMaker{invocation, *std::move(deployment), *std::move(program)};
}

void PrintStep(const Invocation& invocation, const pb::StepResult& result) {
  if (IsStructured(invocation.output())) {
    Print(invocation, result);
  } else if (invocation.output() == OutputFormat::kName) {
    invocation.out() << result.name() << std::endl;
  } else {
    invocation.out() << "step " << result.number() << ": loss "
                     << LossText(result) << ", "
                     << SecondsText(result.duration_seconds()) << std::endl;
  }
}

// One line that is written over on a terminal, a line a step elsewhere.
class TrainLog {
 public:
  TrainLog(const Invocation& invocation, uint64_t first, uint64_t steps)
      : invocation_(invocation),
        first_(first),
        steps_(steps),
        start_(invocation.now()),
        line_(&invocation.out(), invocation.environment().out_is_terminal) {}

  void Take(const pb::StepResult& result) {
    const Environment& environment = invocation_.environment();
    const bool is_text = invocation_.output() == OutputFormat::kTable;
    if (!is_text || !environment.out_is_terminal) {
      PrintStep(invocation_, result);
      return;
    }
    const uint64_t done = result.number() - first_ + 1;
    const double seconds = absl::ToDoubleSeconds(invocation_.now() - start_);
    line_.Show(BarText(
        absl::StrCat("step ", result.number()),
        static_cast<double>(done) / static_cast<double>(steps_),
        absl::StrFormat("loss %s  %.1f steps/s", LossText(result),
                        static_cast<double>(done) / std::max(seconds, 1e-9)),
        environment.width));
  }

 private:
  const Invocation& invocation_;
  const uint64_t first_;
  const uint64_t steps_;
  const absl::Time start_;
  ProgressLine line_;
};

absl::Status TrainSteps(Client& client, const StepMaker& maker, uint64_t count,
                        uint64_t ahead, TrainLog* log) {
  const uint64_t first = maker.deployment.last_step() + 1;
  const std::unique_ptr<TrainStream> stream = client.Train();
  uint64_t written = 0;
  for (uint64_t read = 0; read < count; ++read) {
    for (; written < count && written <= read + ahead; ++written) {
      absl::StatusOr<pb::StepRequest> step = maker.Make(first + written);
      if (!step.ok()) return step.status();
      if (absl::Status status = stream->Write(*std::move(step)); !status.ok()) {
        break;  // Read says which step it was, after the results before it
      }
    }
    const absl::StatusOr<std::optional<pb::StepResult>> result = stream->Read();
    if (!result.ok()) return result.status();
    if (!result->has_value()) break;
    log->Take(**result);
  }
  return stream->Finish();
}

}  // namespace

absl::StatusOr<ExitCode> RunStep(Invocation& invocation) {
  const absl::StatusOr<StepMaker> maker = MakerFor(invocation);
  if (!maker.ok()) return maker.status();
  absl::StatusOr<int64_t> number = invocation.Number(
      "number", static_cast<int64_t>(maker->deployment.last_step() + 1), 1);
  if (!number.ok()) return number.status();
  absl::StatusOr<pb::StepRequest> request =
      maker->Make(static_cast<uint64_t>(*number));
  if (!request.ok()) return request.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const absl::StatusOr<pb::StepResult> result =
      (*client)->Step(*std::move(request));
  if (!result.ok()) return result.status();
  PrintStep(invocation, *result);
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunTrain(Invocation& invocation) {
  const absl::StatusOr<int64_t> steps = invocation.Number("steps", 1, 1);
  if (!steps.ok()) return steps.status();
  const absl::StatusOr<int64_t> ahead = invocation.Number("ahead", 4);
  if (!ahead.ok()) return ahead.status();
  const absl::StatusOr<StepMaker> maker = MakerFor(invocation);
  if (!maker.ok()) return maker.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  TrainLog log(invocation, maker->deployment.last_step() + 1,
               static_cast<uint64_t>(*steps));
  absl::Status status =
      TrainSteps(**client, *maker, static_cast<uint64_t>(*steps),
                 static_cast<uint64_t>(*ahead), &log);
  if (!status.ok()) return status;
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunTimeline(Invocation& invocation) {
  absl::StatusOr<std::string> name = DeploymentName(invocation.arguments()[0]);
  if (!name.ok()) return name.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  std::string step;
  if (invocation.arguments().size() > 1) {
    step = invocation.arguments()[1];
  } else {
    absl::StatusOr<pb::Deployment> deployment = (*client)->GetDeployment(*name);
    if (!deployment.ok()) return deployment.status();
    step = absl::StrCat(deployment->last_step());
  }
  const absl::StatusOr<pb::StepTimeline> timeline =
      (*client)->GetStepTimeline(absl::StrCat(*name, "/steps/", step));
  if (!timeline.ok()) return timeline.status();
  if (invocation.Has("trace")) {
    std::ofstream file(invocation.Value("trace"), std::ios::trunc);
    file << ChromeTrace(*timeline).dump() << "\n";
    file.close();
    if (!file.good()) {
      return UsageError(
          absl::StrCat("--trace: cannot write ", invocation.Value("trace")));
    }
  }
  if (IsStructured(invocation.output())) {
    Print(invocation, *timeline);
  } else {
    invocation.out() << TimelineText(*timeline, invocation.Layout());
  }
  return ExitCode::kDone;
}

}  // namespace shardplane
