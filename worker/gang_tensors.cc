#include "worker/gang_tensors.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

std::string SourceKey(const std::string& fqn) {
  return absl::StrCat("parameter:", fqn);
}

RanCollectives CountRan(const ProgramResult& result) {
  RanCollectives ran;
  ran.counts = CountCollectives("forward", result.forward);
  for (CollectiveCount& count : CountCollectives("backward", result.backward)) {
    ran.counts.push_back(std::move(count));
  }
  ran.hash = HashCollectives(result.backward, HashCollectives(result.forward));
  return ran;
}

RanCollectives CountMaterialized(const Communicator::Materialized& ran) {
  RanCollectives result;
  if (ran.scatters > 0) {
    result.counts.push_back(
        {"materialize", "scatter", ran.scatters, ran.scatter_bytes});
  }
  if (ran.broadcasts > 0) {
    result.counts.push_back(
        {"materialize", "broadcast", ran.broadcasts, ran.broadcast_bytes});
  }
  return result;
}

}  // namespace

absl::Status GangTensors::NotThere(absl::string_view what,
                                   absl::string_view got,
                                   absl::string_view reason) {
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("expected ", what, ", got: ", got),
                   {.reason = std::string(reason),
                    .metadata = {{"resource", std::string(got)}}});
}

GangTensors::GangTensors(const GangSpec& spec, c10::Device device,
                         Graphs graphs, NvtxDomain* nvtx,
                         std::string weights_root)
    : spec_(spec),
      device_(device),
      graphs_(std::move(graphs)),
      nvtx_(nvtx),
      weights_root_(std::move(weights_root)),
      coordinate_(spec.mesh.Coordinate(spec.rank)),
      gradients_(MakeCapturedUpdate()) {}

std::unique_ptr<CapturedUpdate> GangTensors::MakeCapturedUpdate() {
  if (!graphs_.make) return nullptr;
  return std::make_unique<CapturedUpdate>(graphs_.make,
                                          [this](const absl::Status& went) {
                                            graphs_.on_capture("updates", went);
                                          });
}

absl::Status GangTensors::Stage(const std::string& key, HostTensor tensor) {
  staged_[key] = std::move(tensor);
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> GangTensors::TakeStaged(const std::string& key) {
  const auto found = staged_.find(key);
  if (found == staged_.end()) {
    return NotThere("a staged tensor", key);
  }
  HostTensor tensor = std::move(found->second);
  staged_.erase(found);
  return tensor;
}

absl::StatusOr<RanCollectives> GangTensors::Materialize(
    const MaterializeSpec& spec, Communicator& communicator,
    MaterializeProgress* progress) {
  const NvtxRange shown(nvtx_, "materialize");
  communicator.TakeMaterialized();
  communicator.TakeCarried();  // what ran before
  WeightFiles files(weights_root_);
  Materializer materializer(spec, spec_.mesh, spec_.rank, communicator, files);
  SP_ASSIGN_OR_RETURN(parameters_, materializer.Run(
                                       [this](const std::string& fqn) {
                                         return TakeStaged(SourceKey(fqn));
                                       },
                                       progress));
  locals_.clear();
  for (const auto& [fqn, parameter] : parameters_) {
    locals_[fqn] = parameter.local;
  }
  seed_ = spec.seed;
  materialized_ = true;
  ReleaseTensorMemory();  // of whole parameters; runs need other sizes
  RanCollectives ran = CountMaterialized(communicator.TakeMaterialized());
  ran.carried = communicator.TakeCarried();
  return ran;
}

absl::Status GangTensors::LoadProgram(const std::string& id,
                                      const ShardedProgram& program) {
  if (program.mesh != spec_.mesh) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("program ", id, ": expected mesh ", spec_.mesh.ToString(),
                     ", got: ", program.mesh.ToString()),
        {.reason = "MESH_DIFFERS", .metadata = {{"resource", id}}});
  }
  SP_ASSIGN_OR_RETURN(
      std::unique_ptr<PreparedProgram> prepared,
      PreparedProgram::Create(
          program,
          {.coordinate = coordinate_, .device = device_, .nvtx = nvtx_}));
  const auto count = [&](Phase phase) {
    return static_cast<int64_t>(
        Collectives(program, phase, coordinate_).size());
  };
  LoadedProgram loaded{.prepared = std::move(prepared),
                       .forward_collectives = count(Phase::kForward)};
  loaded.train_collectives =
      loaded.forward_collectives + count(Phase::kBackward);
  if (graphs_.make && CapturedRun::Fits(program)) {
    loaded.captured = std::make_shared<CapturedRun>(
        loaded.prepared, coordinate_, graphs_.make,
        [this, what = absl::StrCat(id, ": steps")](const absl::Status& went) {
          graphs_.on_capture(what, went);
        });
  }
  programs_[id] = std::move(loaded);
  return absl::OkStatus();
}

void GangTensors::LeaveGroups() {
  for (auto& [id, loaded] : programs_) {
    if (loaded.captured != nullptr) loaded.captured->LeaveGroups();
  }
  gradients_.LeaveGroups();  // of programs that have been replaced
}

absl::StatusOr<std::vector<at::Tensor>> GangTensors::TakeInputs(
    const RunSpec& spec, const PreparedProgram& program) {
  const std::vector<InputBinding>& bindings = program.program().inputs;
  std::vector<at::Tensor> inputs;
  absl::Status status;
  // All are taken, whatever is wrong with one: a run consumes its inputs.
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    absl::StatusOr<HostTensor> global = TakeStaged(spec.inputs[i]);
    status.Update(global.status());
    if (!status.ok() || i >= bindings.size()) continue;
    const TensorType& expected =
        program.program().values[bindings[i].value].type;
    if (global->type != expected) {
      status =
          MakeError(absl::StatusCode::kInvalidArgument,
                    absl::StrCat("input ", i, ": expected ", ToString(expected),
                                 ", got: ", ToString(global->type)),
                    {.reason = "INPUT_TYPE_DIFFERS",
                     .metadata = {{"field", absl::StrCat("inputs[", i, "]")}}});
      continue;
    }
    const int input = static_cast<int>(i);
    inputs.push_back(SliceToTorch(*global, program.InputPart(input), device_));
    if (program.InputIsZero(input)) inputs.back().zero_();
  }
  SP_RETURN_IF_ERROR(status);
  if (spec.inputs.size() == bindings.size()) return inputs;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("program ", spec.program, ": expected ", bindings.size(),
                   " inputs, got: ", spec.inputs.size()),
      {.reason = "INPUT_COUNT_DIFFERS", .metadata = {{"field", "inputs"}}});
}

absl::StatusOr<std::vector<at::Tensor>> GangTensors::ParametersOf(
    const PreparedProgram& program) const {
  std::vector<at::Tensor> parameters;
  for (const ParameterBinding& binding : program.program().parameters) {
    const auto found = parameters_.find(binding.fqn);
    if (found == parameters_.end()) {
      return NotThere("a materialized parameter", binding.fqn);
    }
    parameters.push_back(found->second.local);
  }
  return parameters;
}

int64_t GangTensors::CollectivesOf(const RunSpec& spec) const {
  int64_t count = 0;
  if (spec.mode != RunMode::kNorm) {
    const auto found = programs_.find(spec.program);
    if (found == programs_.end()) return -1;
    count = spec.mode == RunMode::kTrain ? found->second.train_collectives
                                         : found->second.forward_collectives;
  }
  if (!spec.gradient_norm && spec.mode != RunMode::kNorm) return count;
  for (int dim = 0; dim < spec_.mesh.ndim(); ++dim) {
    if (spec_.mesh.dim_size(dim) > 1) ++count;
  }
  return count;
}

absl::StatusOr<RunResult> GangTensors::Run(const RunSpec& spec,
                                           Communicator& communicator) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t count = CollectivesOf(spec);
  run_ends_at_ = count < 0 ? -1 : communicator.completed() + count;
  communicator.TakeSeconds();  // of what ran before
  communicator.TakeCarried();
  SP_ASSIGN_OR_RETURN(RunResult result, RunAll(spec, communicator));
  result.collective_seconds = communicator.TakeSeconds();
  result.ran.carried = communicator.TakeCarried();
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return result;
}

absl::StatusOr<RunResult> GangTensors::RunAll(const RunSpec& spec,
                                              Communicator& communicator) {
  gradients_.Discard();
  if (!materialized_) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "a run expects materialized parameters, got: none yet",
                     {.reason = "NOT_MATERIALIZED", .metadata = {}});
  }
  RunResult result;
  if (spec.mode != RunMode::kNorm) {
    SP_ASSIGN_OR_RETURN(result, RunProgram(spec, communicator));
  }
  if (spec.gradient_norm || spec.mode == RunMode::kNorm) {
    SP_RETURN_IF_ERROR(AddNorm(communicator, result));
  }
  return result;
}

absl::StatusOr<RunResult> GangTensors::RunProgram(const RunSpec& spec,
                                                  Communicator& communicator) {
  const auto found = programs_.find(spec.program);
  if (found == programs_.end()) return NotThere("a program", spec.program);
  const std::shared_ptr<const PreparedProgram> program = found->second.prepared;
  const int64_t without_inputs = MeasureTensorMemory(device_).now;
  SP_ASSIGN_OR_RETURN(const std::vector<at::Tensor> inputs,
                      TakeInputs(spec, *program));
  SP_ASSIGN_OR_RETURN(const std::vector<at::Tensor> parameters,
                      ParametersOf(*program));
  const int64_t input_bytes = MeasureTensorMemory(device_).now - without_inputs;
  last_ = ProgramResult();  // room for this run's
  ResetTensorMemoryMark(device_);
  const int64_t before = MeasureTensorMemory(device_).now - input_bytes;
  RunResult result;
  SP_ASSIGN_OR_RETURN(
      last_, RunLoaded(spec, found->second, parameters, inputs, communicator,
                       spec.timeline ? &result.timeline : nullptr));
  last_program_ = program;
  result.ran = CountRan(last_);
  result.peak_bytes =
      PeakOf(spec, MeasureTensorMemory(device_).most - before, found->second);
  if (spec.mode == RunMode::kTrain) {
    // Without a loss there are no new gradients, and the old ones stay.
    gradients_.SetPending(
        {std::exchange(last_.gradients, {}), std::exchange(last_.products, {}),
         spec.accumulate || !last_.loss.defined(),
         std::exchange(last_.updates, {}),
         spec.timeline_by_operator ? nullptr : found->second.captured});
    if (last_.loss.defined()) result.loss = FromTorch(last_.loss);
  }
  return result;
}

absl::StatusOr<ProgramResult> GangTensors::RunLoaded(
    const RunSpec& spec, const LoadedProgram& loaded,
    absl::Span<const at::Tensor> parameters,
    absl::Span<const at::Tensor> inputs, Communicator& communicator,
    RunTimeline* timeline) {
  const RandomCounter random{.seed = seed_, .step = spec.random_step};
  if (MayBeCaptured(spec, loaded)) {
    gradients_.LeaveMemoryOf(loaded.captured, spec.accumulate);
    return loaded.captured->Run(parameters, inputs, random, communicator,
                                timeline);
  }
  return loaded.prepared->Run(spec.mode, parameters, inputs, communicator,
                              random, timeline, spec.keep_products);
}

bool GangTensors::MayBeCaptured(const RunSpec& spec,
                                const LoadedProgram& loaded) {
  return spec.mode == RunMode::kTrain && loaded.captured != nullptr &&
         !spec.timeline_by_operator;
}

int64_t GangTensors::PeakOf(const RunSpec& spec, int64_t measured,
                            LoadedProgram& loaded) {
  if (!MayBeCaptured(spec, loaded) || !loaded.captured->holds_results()) {
    return measured;
  }
  loaded.captured_peak = std::max(loaded.captured_peak, measured);
  return loaded.captured_peak;
}

absl::Status GangTensors::AddNorm(Communicator& communicator,
                                  RunResult& result) {
  const NvtxRange shown(nvtx_, "norm");
  const absl::StatusOr<double> norm =
      gradients_.Norm(parameters_, spec_.mesh, coordinate_, communicator);
  const std::vector<CollectiveRecord> records = communicator.TakeRecords();
  if (!norm.ok()) return norm.status();
  result.gradient_norm = *norm;
  for (CollectiveCount& count : CountCollectives("optimizer", records)) {
    result.ran.counts.push_back(std::move(count));
  }
  result.ran.hash = HashCollectives(records, result.ran.hash);
  return absl::OkStatus();
}

absl::Status GangTensors::CheckCommit(
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  return gradients_.CheckCommit(locals_, optimizer, clip_norm);
}

absl::StatusOr<Agreement> GangTensors::Agree(Verdict verdict,
                                             Communicator& communicator) {
  const NvtxRange shown(nvtx_, "agree");
  if (communicator.completed() != run_ends_at_) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "agreeing on a step: expected a run of all its "
                     "collectives; got: one that broke off",
                     {.reason = "OUT_OF_STEP", .metadata = {}});
  }
  if (spec_.mesh.size() == 1) return Agreement{verdict, {}, {}};
  communicator.TakeRecords();  // what a failed run left
  communicator.TakeCarried();
  SP_ASSIGN_OR_RETURN(const bool all,
                      communicator.AllAgree(verdict != Verdict::kDiscard));
  return Agreement{all ? Verdict::kCommit : Verdict::kDiscard,
                   CountCollectives("commit", communicator.TakeRecords()),
                   communicator.TakeCarried()};
}

absl::Status GangTensors::Commit(
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  const NvtxRange shown(nvtx_, "update");
  return gradients_.Commit(locals_, optimizer, clip_norm);
}

absl::Status GangTensors::Discard() {
  gradients_.Discard();
  return absl::OkStatus();
}

absl::Status GangTensors::LoadState(const LoadStateSpec& spec) {
  // All are checked before the first is changed.
  std::vector<std::pair<at::Tensor, at::Tensor>> changes;  // to, from
  absl::Status status;
  for (const auto& [fqn, key] : spec.entries) {
    absl::StatusOr<HostTensor> global = TakeStaged(key);
    status.Update(global.status());
    if (!status.ok()) continue;
    const auto found = parameters_.find(fqn);
    if (found == parameters_.end()) {
      status = NotThere("a parameter", fqn);
      continue;
    }
    const ShardedParameter& parameter = found->second;
    if (global->type != parameter.type) {
      status = MakeError(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("parameter ", fqn, ": expected ",
                       ToString(parameter.type),
                       ", got: ", ToString(global->type)),
          {.reason = "PARAMETER_TYPE_DIFFERS", .metadata = {{"fqn", fqn}}});
      continue;
    }
    const std::vector<Stretches> part = LocalStretches(
        parameter.type.shape, parameter.spec, spec_.mesh, coordinate_);
    changes.emplace_back(parameter.local, SliceToTorch(*global, part, device_));
  }
  SP_RETURN_IF_ERROR(status);
  const at::AutoGradMode no_grad(false);
  for (const auto& [to, from] : changes) to.copy_(from);
  return absl::OkStatus();
}

absl::Status GangTensors::ResetOptimizer() {
  gradients_.ResetOptimizer();
  return absl::OkStatus();
}

}  // namespace shardplane
