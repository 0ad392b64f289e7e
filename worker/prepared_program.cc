#include "worker/prepared_program.h"

#include <chrono>
#include <utility>
#include <variant>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/data_faults.h"
#include "worker/program_state.h"
#include "worker/range_names.h"
#include "worker/torch_tensors.h"

namespace shardplane {

namespace {

// Whether a tensor has its storage for itself, all of it.
bool FillsStorage(const at::Tensor& tensor) {
  return tensor.storage_offset() == 0 &&
         tensor.is_non_overlapping_and_dense() &&
         tensor.storage().nbytes() == tensor.nbytes();
}

// Which instructions `program` has of a kind.
template <typename Kind>
std::vector<const Kind*> All(const ShardedProgram& program) {
  std::vector<const Kind*> all;
  for (const Instruction& step : program.instructions) {
    if (const auto* of = std::get_if<Kind>(&step)) all.push_back(of);
  }
  return all;
}

// The memory of one tensor, which nothing else uses, becomes that of another,
// and of all that share its.
void GiveMemory(at::Tensor from, const at::Tensor& to) {
  if (from.storage_offset() != to.storage_offset() ||
      from.strides() != to.strides() ||
      from.storage().nbytes() != to.storage().nbytes()) {
    const at::Tensor memory =
        at::empty({static_cast<int64_t>(to.storage().nbytes())},
                  to.options().dtype(at::kByte));
    from = at::empty({0}, to.options())
               .set_(memory.storage(), to.storage_offset(), to.sizes(),
                     to.strides())
               .copy_(from);
  }
  to.storage().set_data_ptr_noswap(
      from.storage().set_data_ptr(at::DataPtr(nullptr, from.device())));
}

}  // namespace

at::Tensor WordsOf(const RandomCounter& random) {
  return at::tensor(
      {static_cast<int64_t>(random.seed), static_cast<int64_t>(random.step)},
      at::kLong);
}

PreparedProgram::PreparedProgram(const ShardedProgram& program,
                                 const OperatorContext& context)
    : program_(program),
      context_(context),
      constants_(program.values.size()),
      kept_(program.values.size(), false),
      has_backward_(program.segments.size(), false),
      late_(program.segments.size()),
      products_(program.segments.size()),
      gathered_(program.values.size(), false) {
  context_.mesh = &program_.mesh;
}

absl::StatusOr<std::unique_ptr<PreparedProgram>> PreparedProgram::Create(
    const ShardedProgram& program, const OperatorContext& context) {
  SP_RETURN_IF_ERROR(Validate(program));
  auto prepared =
      std::unique_ptr<PreparedProgram>(new PreparedProgram(program, context));
  SP_RETURN_IF_ERROR(prepared->PrepareSegments(program));
  if (context.nvtx != nullptr) {
    prepared->names_ = NvtxNames(context.nvtx, InstructionNames(program));
  }
  for (const Value& value : program.values) {
    prepared->local_shapes_.push_back(LocalShape(
        value.type.shape, value.spec, program.mesh, context.coordinate));
  }
  const auto keep = [&](ValueId id) {
    if (id >= 0) prepared->kept_[id] = true;
  };
  for (const ValueId id : program.outputs) keep(id);
  keep(program.loss);
  for (const ParameterBinding& binding : program.parameters) {
    keep(binding.gradient);
    keep(binding.update);
  }
  for (const InputBinding& binding : program.inputs) keep(binding.gradient);
  for (const auto* step : All<Redistribute>(program)) {
    prepared->gathered_[step->output] = IsCollective(step->kind);
  }
  for (const auto* bucket : All<Bucket>(program)) {
    for (const ValueId id : bucket->outputs) prepared->gathered_[id] = true;
  }
  for (const auto* ones : All<Ones>(program)) {
    const DType dtype = program.values[ones->output].type.dtype;
    prepared->constants_[ones->output] =
        at::ones(prepared->local_shapes_[ones->output],
                 at::dtype(ToScalarType(dtype)).device(context.device));
  }
  return prepared;
}

std::vector<Stretches> PreparedProgram::InputPart(int input) const {
  const Value& value = program_.values[program_.inputs[input].value];
  return LocalStretches(value.type.shape, value.spec, program_.mesh,
                        context_.coordinate);
}

bool PreparedProgram::InputIsZero(int input) const {
  const Value& value = program_.values[program_.inputs[input].value];
  for (int dim = 0; dim < program_.mesh.ndim(); ++dim) {
    if (IsPartial(value.spec.placements[dim]) &&
        context_.coordinate[dim] != 0) {
      return true;
    }
  }
  return false;
}

absl::Status PreparedProgram::CheckShape(ValueId id,
                                         const at::Tensor& tensor) const {
  const Value& value = program_.values[id];
  if (tensor.defined() && tensor.sizes() == local_shapes_[id] &&
      tensor.scalar_type() == ToScalarType(value.type.dtype)) {
    return absl::OkStatus();
  }
  const TensorType expected{value.type.dtype, local_shapes_[id]};
  return MakeError(
      absl::StatusCode::kInternal,
      absl::StrCat("value %", id, " (", value.name, "): expected ",
                   ToString(expected), " on this rank, got: ",
                   tensor.defined() ? ToString(TypeOf(tensor)) : "nothing"),
      {.reason = "LOCAL_TYPE_DIFFERS", .metadata = {{"value", value.name}}});
}

absl::Status PreparedProgram::Execute(const Redistribute& step,
                                      State& state) const {
  SP_ASSIGN_OR_RETURN(
      at::Tensor output,
      Communicate(step, state.values[step.input], *state.communicator));
  SP_RETURN_IF_ERROR(CheckShape(step.output, output));
  state.values[step.output] = std::move(output);
  return absl::OkStatus();
}

absl::StatusOr<Communicator::BegunEach> PreparedProgram::Begin(
    const Bucket& step, absl::Span<const at::Tensor> inputs,
    Communicator& communicator) const {
  switch (step.kind) {
    case RedistributeKind::kAllReduce:
      return communicator.BeginAllReduceEach(inputs, step.mesh_dim, step.op);
    case RedistributeKind::kAllGather: {
      std::vector<int64_t> extents;
      for (size_t i = 0; i < inputs.size(); ++i) {
        extents.push_back(GatheredExtent(StepOf(step, i)));
      }
      return communicator.BeginAllGatherEach(inputs, step.mesh_dim, step.dims,
                                             extents);
    }
    case RedistributeKind::kReduceScatter:
      return communicator.BeginReduceScatterEach(inputs, step.mesh_dim,
                                                 step.dims, step.op);
    default:
      return absl::InternalError("no such kind of bucket");
  }
}

absl::Status PreparedProgram::End(const Bucket& step,
                                  absl::Span<const at::Tensor> inputs,
                                  std::vector<at::Tensor> outputs,
                                  State& state) const {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const ValueId id = step.outputs[i];
    outputs[i] = FromChunks(StepOf(step, i), inputs[i], outputs[i]);
    SP_RETURN_IF_ERROR(CheckShape(id, outputs[i]));
    if (step.again) {
      GiveMemory(std::move(outputs[i]), state.values[id]);
    } else {
      state.values[id] = std::move(outputs[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const Bucket& step, State& state) const {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> sent;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    const Redistribute one = StepOf(step, i);
    const at::Tensor& input = state.values[step.inputs[i]];
    const bool shared =
        step.kind == RedistributeKind::kAllReduce && IsPacked(one);
    inputs.push_back(shared ? input : at::Tensor());
    sent.push_back(InChunks(one, input));
  }
  SP_ASSIGN_OR_RETURN(Communicator::BegunEach begun,
                      Begin(step, sent, *state.communicator));
  if (step.async) {
    state.begun.push_back({&step, std::move(begun), std::move(inputs)});
    return absl::OkStatus();
  }
  SP_ASSIGN_OR_RETURN(std::vector<at::Tensor> outputs, begun());
  return End(step, inputs, std::move(outputs), state);
}

absl::Status PreparedProgram::Execute(const Wait& step, State& state) const {
  for (const ValueId id : step.values) {
    const auto begun =
        absl::c_find_if(state.begun, [id](const State::Begun& b) {
          return absl::c_linear_search(b.step->outputs, id);
        });
    if (begun == state.begun.end()) continue;  // with another of its bucket
    SP_ASSIGN_OR_RETURN(std::vector<at::Tensor> outputs, begun->wait());
    SP_RETURN_IF_ERROR(
        End(*begun->step, begun->inputs, std::move(outputs), state));
    state.begun.erase(begun);
  }
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const Reshard& step, State& state) const {
  for (size_t i = 0; i < step.values.size(); ++i) {
    const at::Tensor& whole = state.values[step.values[i]];
    if (!gathered_[step.values[i]] && !FillsStorage(whole)) {
      const std::string& name = program_.values[step.values[i]].name;
      return MakeError(
          absl::StatusCode::kInternal,
          absl::StrCat("value %", step.values[i], " (", name,
                       "): expected memory of its own, got: a part of ",
                       whole.storage().nbytes(), " bytes"),
          {.reason = "MEMORY_SHARED", .metadata = {{"value", name}}});
    }
    if (!step.outputs.empty()) {
      at::Tensor part =
          Slice(StepOf(step, i), whole).clone(at::MemoryFormat::Contiguous);
      SP_RETURN_IF_ERROR(CheckShape(step.outputs[i], part));
      state.values[step.outputs[i]] = std::move(part);
    }
    whole.storage().set_data_ptr_noswap(at::DataPtr(nullptr, whole.device()));
  }
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const Accumulate& step,
                                      State& state) const {
  at::Tensor sum = state.values[step.inputs.at(0)];
  for (size_t i = 1; i < step.inputs.size(); ++i) {
    sum = sum.add(state.values[step.inputs[i]]);
  }
  SP_RETURN_IF_ERROR(CheckShape(step.output, sum));
  state.values[step.output] = std::move(sum);
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const Ones& step, State& state) const {
  state.values[step.output] = constants_[step.output];
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const Free& step, State& state) const {
  for (const ValueId id : step.values) {
    if (!kept_[id]) state.values[id].reset();
  }
  return absl::OkStatus();
}

ProgramResult PreparedProgram::Collect(State& state) const {
  ProgramResult result;
  const auto value = [&](ValueId id) {
    return id < 0 ? at::Tensor() : state.values[id];
  };
  // A commit changes parameters and buffers in place, and a result stays.
  const auto apart = [&](ValueId id) {
    at::Tensor tensor = value(id);
    for (const ParameterBinding& parameter : program_.parameters) {
      const at::Tensor& weight = state.values[parameter.value];
      if (weight.defined() && tensor.is_alias_of(weight)) {
        tensor = tensor.clone();
      }
    }
    return tensor;
  };
  for (const ValueId id : program_.outputs) {
    result.outputs.push_back(apart(id));
  }
  result.loss = value(program_.loss);
  if (state.keep_products) result.products = CollectProducts(state);
  for (const InputBinding& binding : program_.inputs) {
    result.input_gradients.push_back(value(binding.gradient));
  }
  for (const ParameterBinding& binding : program_.parameters) {
    const at::Tensor gradient = value(binding.gradient);
    if (gradient.defined()) result.gradients[binding.fqn] = gradient;
    if (binding.update >= 0) {
      result.updates[binding.fqn] = apart(binding.update);
    }
  }
  return result;
}

absl::Status PreparedProgram::Bind(absl::Span<const at::Tensor> parameters,
                                   absl::Span<const at::Tensor> inputs,
                                   RandomCounter random, State& state) const {
  for (size_t i = 0; i < program_.parameters.size(); ++i) {
    const ValueId id = program_.parameters[i].value;
    SP_RETURN_IF_ERROR(CheckShape(id, parameters[i]));
    state.values[id] = parameters[i];
  }
  for (size_t i = 0; i < program_.inputs.size(); ++i) {
    const ValueId id = program_.inputs[i].value;
    SP_RETURN_IF_ERROR(CheckShape(id, inputs[i]));
    state.values[id] = inputs[i];
  }
  if (program_.random >= 0) {
    state.values[program_.random] =
        random.words.defined() ? random.words
                               : CopyTo(WordsOf(random), context_.device);
  }
  return absl::OkStatus();
}

absl::Status PreparedProgram::ExecuteRange(const char* name, int begin, int end,
                                           State& state) const {
  const NvtxRange all(context_.nvtx, name);
  const auto now = [&state] {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now() -
                                    state.start)
        .count();
  };
  int64_t since = state.timeline == nullptr ? 0 : now();
  for (int i = begin; i < end; ++i) {
    const NvtxRange shown(names_, i);
    SP_RETURN_IF_ERROR(
        std::visit([&](const auto& step) { return Execute(step, state); },
                   program_.instructions[i]));
    if (state.timeline == nullptr) continue;
    const int64_t until = now();
    state.timeline->spans.push_back({i, since, until - since});
    since = until;
  }
  return absl::OkStatus();
}

absl::StatusOr<ProgramResult> PreparedProgram::Run(
    RunMode mode, absl::Span<const at::Tensor> parameters,
    absl::Span<const at::Tensor> inputs, Communicator& communicator,
    RandomCounter random, RunTimeline* timeline, bool keep_products,
    Checks* checks) const {
  if (mode == RunMode::kTrain && program_.loss < 0 &&
      !ChangesBuffers(program_)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "training: expected a program with a loss, got: one "
                     "without",
                     {.reason = "NO_LOSS", .metadata = {}});
  }
  const at::AutoGradMode no_grad(false);
  DataFaults faults(checks != nullptr || !context_.device.is_cpu());
  const bool train = mode == RunMode::kTrain;
  State state{
      .recording = train ? Recording::kOn : Recording::kOff,
      .keep_products = train && keep_products,
      .values = std::vector<at::Tensor>(program_.values.size()),
      .recordings = std::vector<SegmentRecording>(program_.segments.size()),
      .communicator = &communicator,
      .timeline = timeline,
      .start = std::chrono::steady_clock::now()};
  if (timeline != nullptr) {
    timeline->spans.reserve(program_.instructions.size());
    timeline->begin_unix = absl::GetCurrentTimeNanos();
  }
  SP_RETURN_IF_ERROR(Bind(parameters, inputs, random, state));
  communicator.TakeRecords();  // what a failed run left
  const int begin = program_.backward_begin;
  SP_RETURN_IF_ERROR(ExecuteRange("forward", 0, begin, state));
  std::vector<CollectiveRecord> forward = communicator.TakeRecords();
  if (train) {
    const int end = static_cast<int>(program_.instructions.size());
    SP_RETURN_IF_ERROR(ExecuteRange("backward", begin, end, state));
  }
  SP_RETURN_IF_ERROR(communicator.Finish());
  if (checks != nullptr) *checks = faults.TakeDeferred();
  SP_RETURN_IF_ERROR(faults.status());
  ProgramResult result = Collect(state);
  result.forward = std::move(forward);
  result.backward = communicator.TakeRecords();
  return result;
}

}  // namespace shardplane
