// What a worker checks before it runs a program.
#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/redistribute.h"
#include "common/segment_check.h"
#include "common/sharded_program.h"

namespace shardplane {
namespace {

// Of a value. What is there is kMade.
enum class State { kUnmade, kUnderWay, kMade, kResharded, kFreed };

absl::string_view ToString(State state) {
  switch (state) {
    case State::kUnmade:
      return "before";
    case State::kUnderWay:
      return "before it was waited for";
    case State::kMade:
      return "while it is there";
    case State::kResharded:
      return "after it was resharded";
    case State::kFreed:
      return "after it was freed";
  }
  return "";
}

// Follows the instructions, keeping book of which values there are.
class Checker {
 public:
  explicit Checker(const ShardedProgram& program)
      : program_(program),
        has_(program.values.size(), State::kUnmade),
        memory_of_(program.values.size()),
        owns_memory_(program.values.size(), false),
        ran_(program.segments.size(), false) {
    std::iota(memory_of_.begin(), memory_of_.end(), 0);
  }

  absl::Status Check() {
    SP_RETURN_IF_ERROR(CheckValues());
    for (const ParameterBinding& p : program_.parameters) {
      SP_RETURN_IF_ERROR(Make(p.value));
    }
    for (const InputBinding& input : program_.inputs) {
      SP_RETURN_IF_ERROR(Make(input.value));
    }
    if (program_.random >= 0) {
      SP_RETURN_IF_ERROR(Make(program_.random));
      SP_RETURN_IF_ERROR(CheckRandom());
    }
    const int size = static_cast<int>(program_.instructions.size());
    if (program_.backward_begin < 0 || program_.backward_begin > size) {
      return ProgramError(
          absl::StrCat("backward begins within ", size,
                       " instructions; got: ", program_.backward_begin));
    }
    for (int i = 0; i < size; ++i) {
      if (i == program_.backward_begin) SP_RETURN_IF_ERROR(CheckAllThere());
      SP_RETURN_IF_ERROR(std::visit([this](const auto& s) { return Step(s); },
                                    program_.instructions[i]));
    }
    SP_RETURN_IF_ERROR(CheckAllThere());
    return CheckResults();
  }

 private:
  absl::Status CheckValues() const {
    for (const Value& value : program_.values) {
      SP_RETURN_IF_ERROR(Validate(value.spec, program_.mesh,
                                  static_cast<int>(value.type.shape.size())));
      for (int m = 0; m < program_.mesh.ndim(); ++m) {
        const Placement& placement = value.spec.placements[m];
        if (BlocksOf(placement).empty()) continue;
        SP_RETURN_IF_ERROR(CheckBlocks(BlocksOf(placement),
                                       value.type.shape[ShardDim(placement)],
                                       program_.mesh.dim_size(m)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status InRange(ValueId id) const {
    if (id >= 0 && id < static_cast<int>(has_.size())) return absl::OkStatus();
    return ProgramError(
        absl::StrCat("ids are below ", has_.size(), "; got: ", id));
  }
  absl::Status Make(ValueId id, bool async = false) {
    SP_RETURN_IF_ERROR(InRange(id));
    if (has_[id] != State::kUnmade) {
      return ProgramError(
          absl::StrCat("each value is made once; got: %", id, " twice"));
    }
    Begin(id, async);
    return absl::OkStatus();
  }
  void Begin(ValueId id, bool async) {
    has_[id] = async ? State::kUnderWay : State::kMade;
    if (async) ++under_way_;
  }
  absl::Status Use(ValueId id) const {
    SP_RETURN_IF_ERROR(InRange(id));
    if (has_[id] == State::kMade) return UseMemory(id);
    return ProgramError(
        absl::StrCat("values are used between being made and freed; got: %", id,
                     " ", ToString(has_[id])));
  }
  // What another value has lent it may be gone while it is still there.
  absl::Status UseMemory(ValueId id) const {
    const State state = has_[memory_of_[id]];
    if (state != State::kResharded && state != State::kUnderWay) {
      return absl::OkStatus();
    }
    return ProgramError(absl::StrCat("the memory of %", id, " is that of %",
                                     memory_of_[id], "; got: a use ",
                                     ToString(state)));
  }
  absl::Status UseAll(const std::vector<ValueId>& ids) const {
    for (const ValueId id : ids) SP_RETURN_IF_ERROR(Use(id));
    return absl::OkStatus();
  }

  absl::StatusOr<const Segment*> Find(int segment) const {
    if (segment < 0 || segment >= static_cast<int>(ran_.size())) {
      return ProgramError(
          absl::StrCat("segments are below ", ran_.size(), "; got: ", segment));
    }
    return &program_.segments[segment];
  }

  absl::Status Step(const RunSegment& run) {
    SP_ASSIGN_OR_RETURN(const Segment* segment, Find(run.segment));
    if (ran_[run.segment]) return ProgramError("a segment runs twice");
    ran_[run.segment] = true;
    SP_RETURN_IF_ERROR(UseAll(segment->inputs));
    SP_RETURN_IF_ERROR(CheckSegment(program_, *segment));
    for (const ValueId id : segment->outputs) {
      SP_RETURN_IF_ERROR(Make(id));
      owns_memory_[id] = true;  // the planner's word; the worker looks
    }
    return absl::OkStatus();
  }

  absl::Status CheckRandom() const {
    const Value& random = program_.values[program_.random];
    if (random.type == TensorType{DType::kInt64, {2}} &&
        IsFullyReplicated(random.spec)) {
      return absl::OkStatus();
    }
    return ProgramError(absl::StrCat(
        "random is i64[2] and replicated; got: ", ToString(random.type), " ",
        ToString(random.spec)));
  }

  absl::Status Step(const RunSegmentBackward& back) {
    SP_ASSIGN_OR_RETURN(const Segment* segment, Find(back.segment));
    if (!ran_[back.segment]) {
      return ProgramError("a backward precedes its forward");
    }
    if (back.output_gradients.size() !=
            segment->differentiable_outputs.size() ||
        back.input_gradients.size() != segment->differentiable_inputs.size()) {
      return ProgramError(
          absl::StrCat("a backward of segment ", back.segment,
                       " has gradients of another number of values"));
    }
    for (const ValueId id : segment->inputs) {
      SP_RETURN_IF_ERROR(UseMemory(id));
    }
    for (const ValueId id : back.output_gradients) {
      if (id >= 0) SP_RETURN_IF_ERROR(Use(id));
    }
    for (size_t i = 0; i < back.input_gradients.size(); ++i) {
      const ValueId id = back.input_gradients[i];
      if (id < 0) {
        later_.insert({back.segment, segment->differentiable_inputs[i]});
      } else {
        SP_RETURN_IF_ERROR(Make(id));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Step(const RunWeightGradients& run) {
    SP_RETURN_IF_ERROR(Find(run.segment).status());
    if (run.weights.size() != run.gradients.size()) {
      return ProgramError(absl::StrCat(
          "weight gradients are one a weight; got: ", run.gradients.size(),
          " of ", run.weights.size()));
    }
    for (size_t i = 0; i < run.weights.size(); ++i) {
      if (later_.erase({run.segment, run.weights[i]}) == 0) {
        return ProgramError(absl::StrCat(
            "weight gradients are those that the backward of segment ",
            run.segment, " has left out; got: that of %", run.weights[i]));
      }
      SP_RETURN_IF_ERROR(Make(run.gradients[i]));
    }
    const auto left = later_.lower_bound({run.segment, 0});
    if (left == later_.end() || left->first != run.segment) {
      return absl::OkStatus();
    }
    return ProgramError(
        absl::StrCat("a segment's weight gradients are made at "
                     "one time; got: none of %",
                     left->second));
  }

  absl::Status Step(const Redistribute& step) {
    SP_RETURN_IF_ERROR(Use(step.input));
    SP_RETURN_IF_ERROR(Make(step.output));
    SP_RETURN_IF_ERROR(CheckMeshDim(program_, step.mesh_dim));
    if (!IsCollective(step.kind)) {
      memory_of_[step.output] = memory_of_[step.input];
    }
    owns_memory_[step.output] =
        IsCollective(step.kind) && program_.mesh.dim_size(step.mesh_dim) > 1;
    return CheckLeads(step);
  }
  absl::Status CheckLeads(const Redistribute& step) const {
    const Value& in = program_.values[step.input];
    const Value& out = program_.values[step.output];
    if (in.type != out.type || !Fits(step, in.spec, out.spec)) {
      return ProgramError(absl::StrCat(
          ToString(step.kind), " along ",
          program_.mesh.dims()[step.mesh_dim].name, " does not lead from ",
          ToString(in.type), " ", ToString(in.spec),
          " to; got: ", ToString(out.type), " ", ToString(out.spec)));
    }
    return absl::OkStatus();
  }

  // Whether the step's kind is what leads from one spec to the other.
  bool Fits(const Redistribute& step, const DTensorSpec& in,
            const DTensorSpec& out) const {
    if (step.kind == RedistributeKind::kAlias) {
      return in == out || IsAllOf(step.mesh_dim, in, out) ||
             IsAllOf(step.mesh_dim, out, in);
    }
    const auto steps = PlanRedistribute(in, out);
    if (!steps.ok() || steps->size() != 1) return false;
    const RedistributeStep& only = (*steps)[0];
    return only.kind == step.kind && only.mesh_dim == step.mesh_dim &&
           only.from_dim == step.from_dim && only.to_dim == step.to_dim &&
           (step.kind == RedistributeKind::kSlice ||
            step.kind == RedistributeKind::kAllGather || only.op == step.op);
  }

  // Whether what all ranks along a mesh dim share in one is what they have in
  // the other: replicated, as sums, or shared along another dim.
  bool IsAllOf(int m, const DTensorSpec& shared,
               const DTensorSpec& other) const {
    const Blocks blocks = BlocksOf(shared.placements[m]);
    const Placement& has = other.placements[m];
    const int ranks = program_.mesh.dim_size(m);
    const bool alike =
        BlocksOf(has).IsSharedByAll(ranks)
            ? BlocksOf(has).partial() == blocks.partial()
            : (blocks.partial() ? IsPartial(has) : IsReplicate(has));
    return blocks.IsSharedByAll(ranks) && alike &&
           WithPlacement(shared, m, has) == other;
  }

  absl::Status Step(const Bucket& bucket) {
    SP_RETURN_IF_ERROR(CheckMeshDim(program_, bucket.mesh_dim));
    SP_RETURN_IF_ERROR(CheckForm(bucket));
    SP_RETURN_IF_ERROR(UseAll(bucket.inputs));
    for (size_t i = 0; i < bucket.inputs.size(); ++i) {
      SP_RETURN_IF_ERROR(bucket.again ? Remake(bucket.outputs[i], bucket.async)
                                      : Make(bucket.outputs[i], bucket.async));
      owns_memory_[bucket.outputs[i]] =
          !SharesBlock(bucket) && program_.mesh.dim_size(bucket.mesh_dim) > 1;
      const Value& in = program_.values[bucket.inputs[i]];
      const Value& out = program_.values[bucket.outputs[i]];
      if (in.type != out.type || !Fits(StepOf(bucket, i), in.spec, out.spec) ||
          in.type.dtype != program_.values[bucket.inputs[0]].type.dtype) {
        return ProgramError(absl::StrCat(
            "a bucket takes tensors of one dtype, as ", ToString(bucket.kind),
            " does; got: ", ToString(in.type), " ", ToString(in.spec), " to ",
            ToString(out.type), " ", ToString(out.spec)));
      }
    }
    return absl::OkStatus();
  }
  absl::Status CheckForm(const Bucket& bucket) const {
    if (bucket.inputs.empty() ||
        bucket.inputs.size() != bucket.outputs.size()) {
      return ProgramError(absl::StrCat(
          "a bucket has one output an input; got: ", bucket.inputs.size(),
          " inputs and ", bucket.outputs.size(), " outputs"));
    }
    if (bucket.kind > RedistributeKind::kReduceScatter) {
      return ProgramError(
          absl::StrCat("a bucket reduces, gathers or scatters; got: ",
                       ToString(bucket.kind)));
    }
    if (bucket.again && bucket.kind != RedistributeKind::kAllGather) {
      return ProgramError(absl::StrCat(
          "what happens again is an all_gather; got: ", ToString(bucket.kind)));
    }
    const size_t dims =
        bucket.kind == RedistributeKind::kAllReduce ? 0 : bucket.inputs.size();
    if (bucket.dims.size() == dims) return absl::OkStatus();
    return ProgramError(absl::StrCat("a bucket of ", bucket.inputs.size(),
                                     " that is ", ToString(bucket.kind),
                                     " has ", dims,
                                     " dims; got: ", bucket.dims.size()));
  }
  absl::Status Remake(ValueId id, bool async) {
    SP_RETURN_IF_ERROR(InRange(id));
    if (has_[id] != State::kResharded) {
      return ProgramError(absl::StrCat(
          "what is gathered again was resharded before; got: %", id));
    }
    Begin(id, async);
    return absl::OkStatus();
  }
  absl::Status Step(const Wait& wait) {
    for (const ValueId id : wait.values) {
      SP_RETURN_IF_ERROR(InRange(id));
      if (has_[id] != State::kUnderWay) {
        return ProgramError(
            absl::StrCat("what is waited for was started before; got: %", id));
      }
      has_[id] = State::kMade;
      --under_way_;
    }
    return absl::OkStatus();
  }
  absl::Status CheckAllThere() const {
    if (!later_.empty()) {
      return ProgramError(
          absl::StrCat("a backward's gradients are all made; got: none "
                       "of %",
                       later_.begin()->second));
    }
    if (under_way_ == 0) return absl::OkStatus();
    return ProgramError(absl::StrCat(
        "a phase waits for all that it starts; got: one that leaves ",
        under_way_, " values under way"));
  }
  absl::Status Step(const Reshard& reshard) {
    SP_RETURN_IF_ERROR(CheckMeshDim(program_, reshard.mesh_dim));
    const bool keeps_parts = !reshard.outputs.empty();
    if (keeps_parts && reshard.outputs.size() != reshard.values.size()) {
      return ProgramError(absl::StrCat(
          "a reshard keeps one part a value; got: ", reshard.outputs.size(),
          " of ", reshard.values.size()));
    }
    for (size_t i = 0; i < reshard.values.size(); ++i) {
      const ValueId id = reshard.values[i];
      SP_RETURN_IF_ERROR(Use(id));
      if (!owns_memory_[id]) {
        return ProgramError(
            absl::StrCat("what is resharded has memory of its own; "
                         "got: %",
                         id));
      }
      has_[id] = State::kResharded;
      if (!keeps_parts) continue;
      SP_RETURN_IF_ERROR(Make(reshard.outputs[i]));
      SP_RETURN_IF_ERROR(CheckLeads(StepOf(reshard, i)));
    }
    return absl::OkStatus();
  }
  absl::Status Step(const Accumulate& sum) {
    SP_RETURN_IF_ERROR(UseAll(sum.inputs));
    for (const ValueId id : sum.inputs) {
      if (program_.values[id].spec != program_.values[sum.inputs[0]].spec) {
        return ProgramError("accumulate takes values that lie alike");
      }
    }
    return Make(sum.output);
  }
  absl::Status Step(const Ones& ones) { return Make(ones.output); }
  absl::Status Step(const Free& free) {
    for (const ValueId id : free.values) {
      SP_RETURN_IF_ERROR(Use(id));
      has_[id] = State::kFreed;
    }
    return absl::OkStatus();
  }

  absl::Status CheckResults() const {
    SP_RETURN_IF_ERROR(UseAll(program_.outputs));
    if (program_.loss >= 0) SP_RETURN_IF_ERROR(Use(program_.loss));
    for (const ParameterBinding& p : program_.parameters) {
      SP_RETURN_IF_ERROR(CheckGradient(p.fqn, p.value, p.gradient));
      SP_RETURN_IF_ERROR(CheckUpdate(p));
    }
    for (const InputBinding& input : program_.inputs) {
      SP_RETURN_IF_ERROR(
          CheckGradient("an input", input.value, input.gradient));
    }
    return absl::OkStatus();
  }

  absl::Status CheckUpdate(const ParameterBinding& p) const {
    if (p.update < 0) return absl::OkStatus();
    SP_RETURN_IF_ERROR(Use(p.update));
    const Value& from = program_.values[p.update];
    const Value& to = program_.values[p.value];
    if (from.type == to.type && from.spec == to.spec) return absl::OkStatus();
    return ProgramError(absl::StrCat("the update of ", p.fqn, " is ",
                                     ToString(to.type), " ", ToString(to.spec),
                                     "; got: ", ToString(from.type), " ",
                                     ToString(from.spec)));
  }

  absl::Status CheckGradient(const std::string& name, ValueId value,
                             ValueId gradient) const {
    if (gradient < 0) return absl::OkStatus();
    SP_RETURN_IF_ERROR(Use(gradient));
    if (program_.values[gradient].type == program_.values[value].type) {
      return absl::OkStatus();
    }
    return ProgramError(absl::StrCat(
        "the gradient of ", name, " is ", ToString(program_.values[value].type),
        "; got: ", ToString(program_.values[gradient].type)));
  }

  const ShardedProgram& program_;
  std::vector<State> has_;
  // Whose memory a value may lie in: its own, or what it was cut from.
  std::vector<ValueId> memory_of_;
  std::vector<bool> owns_memory_;  // not that of another value
  // Segment and input, whose gradient its backward has left out.
  std::set<std::pair<int, ValueId>> later_;
  int under_way_ = 0;  // values
  std::vector<bool> ran_;
};

}  // namespace

absl::Status Validate(const ShardedProgram& program) {
  return Checker(program).Check();
}

}  // namespace shardplane
