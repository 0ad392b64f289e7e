#include "common/value_flow.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "common/op_values.h"

namespace shardplane {
namespace {

// What carries a gradient back over `move`, which may be a vary.
bool IsWayBack(const Redistribute& move, const Redistribute& step) {
  if (move.mesh_dim != step.mesh_dim) return false;
  switch (move.kind) {
    case RedistributeKind::kAlias:
      return step.kind == RedistributeKind::kAllReduce ||
             step.kind == RedistributeKind::kReduceScatter;
    case RedistributeKind::kAllGather:
      return step.kind == RedistributeKind::kSlice;
    case RedistributeKind::kSlice:
      return step.kind == RedistributeKind::kAllGather ||
             step.kind == RedistributeKind::kSpread;
    case RedistributeKind::kReduceScatter:
      return step.kind == RedistributeKind::kAllGather;
    case RedistributeKind::kAllToAll:
      return step.kind == RedistributeKind::kAllToAll;
    case RedistributeKind::kSpread:
      return step.kind == RedistributeKind::kSlice;
    case RedistributeKind::kAllReduce:
    case RedistributeKind::kMask:
      return false;
  }
  return false;
}

}  // namespace

ValueFlow::ValueFlow(const ShardedProgram& program)
    : program_(program), values_(program.values.size()) {
  for (size_t i = 0; i < program.parameters.size(); ++i) {
    values_[program.parameters[i].value].parameter = static_cast<int>(i);
    values_[program.parameters[i].value].forward = true;
  }
  for (const InputBinding& input : program.inputs) {
    values_[input.value].forward = true;
  }
  if (program.random >= 0) values_[program.random].forward = true;
  const int count = static_cast<int>(program.instructions.size());
  for (int i = 0; i < program.backward_begin; ++i) {
    ReadForward(program.instructions[i]);
  }
  for (int i = program.backward_begin; i < count; ++i) {
    ReadBackward(program.instructions[i]);
  }
}

void ValueFlow::ReadForward(const Instruction& instruction) {
  if (const auto* move = std::get_if<Redistribute>(&instruction)) {
    return ReadMove(*move);
  }
  if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    if (bucket->again) return;
    for (size_t i = 0; i < bucket->inputs.size(); ++i) {
      ReadMove(of_buckets_.emplace_back(StepOf(*bucket, i)));
    }
    return;
  }
  const auto* run = std::get_if<RunSegment>(&instruction);
  if (run == nullptr) return;
  for (const Op& op : program_.segments[run->segment].ops) {
    for (const ValueId id : ValuesReadBy(op)) values_[id].users.push_back(&op);
    for (const ValueId id : op.results) {
      values_[id].op = &op;
      values_[id].forward = true;
    }
  }
}

void ValueFlow::ReadMove(const Redistribute& move) {
  values_[move.output].move = &move;
  values_[move.output].forward = true;
  values_[move.input].moved_to.push_back(move.output);
}

// Whether this is of the forward pass, and runs again in the backward pass.
bool ValueFlow::IsRecomputed(const Instruction& instruction) const {
  if (const auto* step = std::get_if<Redistribute>(&instruction)) {
    return IsForward(step->input);
  }
  if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    return IsForward(bucket->inputs[0]);
  }
  const auto* run = std::get_if<RunSegment>(&instruction);
  if (run == nullptr) return false;
  const Segment& segment = program_.segments[run->segment];
  return std::all_of(segment.inputs.begin(), segment.inputs.end(),
                     [this](ValueId id) { return IsForward(id); });
}

void ValueFlow::ReadBackward(const Instruction& instruction) {
  if (IsRecomputed(instruction)) return ReadForward(instruction);
  if (const auto* ones = std::get_if<Ones>(&instruction)) {
    values_[ones->output].gradient_of = program_.loss;
  } else if (const auto* back = std::get_if<RunSegmentBackward>(&instruction)) {
    const Segment& segment = program_.segments[back->segment];
    for (size_t i = 0; i < back->input_gradients.size(); ++i) {
      if (back->input_gradients[i] < 0) continue;
      values_[back->input_gradients[i]].gradient_of =
          segment.differentiable_inputs[i];
    }
  } else if (const auto* run = std::get_if<RunWeightGradients>(&instruction)) {
    for (size_t i = 0; i < run->weights.size(); ++i) {
      values_[run->gradients[i]].gradient_of = run->weights[i];
    }
  } else if (const auto* sum = std::get_if<Accumulate>(&instruction)) {
    values_[sum->output].gradient_of = GradientOf(sum->inputs[0]);
  } else if (const auto* step = std::get_if<Redistribute>(&instruction)) {
    values_[step->output].gradient_of = GradientTarget(*step);
  } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    for (size_t i = 0; i < bucket->inputs.size(); ++i) {
      values_[bucket->outputs[i]].gradient_of =
          GradientTarget(StepOf(*bucket, i));
    }
  }
}

const Redistribute* ValueFlow::TransposeOf(const Redistribute& step) const {
  ValueId id = GradientOf(step.input);
  while (id >= 0) {
    const Redistribute* move = MovedBy(id);
    if (move != nullptr) {
      if (IsWayBack(*move, step)) return move;
      id = move->input;
      continue;
    }
    // A term that was added after a reduction: its gradient is that of the
    // reduced one.
    const Op* op = MadeBy(id);
    if (op == nullptr || op->target != "aten.add.Tensor") return nullptr;
    const auto* base = std::get_if<ValueRef>(&op->args[0].value);
    if (base == nullptr) return nullptr;
    id = base->id;
  }
  return nullptr;
}

ValueId ValueFlow::GradientTarget(const Redistribute& step) const {
  const Redistribute* move = TransposeOf(step);
  if (move == nullptr) return GradientOf(step.input);
  // Gather and vary go back in one.
  if (move->kind == RedistributeKind::kAlias &&
      step.kind == RedistributeKind::kReduceScatter) {
    if (const Redistribute* gather = MovedBy(move->input)) return gather->input;
  }
  return move->input;
}

ValueId ValueFlow::Origin(ValueId id) const {
  while (const Redistribute* move = MovedBy(id)) id = move->input;
  return id;
}

const ParameterBinding* ValueFlow::ParameterOf(ValueId id) const {
  const int index = values_[Origin(id)].parameter;
  return index < 0 ? nullptr : &program_.parameters[index];
}

std::vector<const Op*> ValueFlow::Users(ValueId id) const {
  std::vector<const Op*> users(values_[id].users.begin(),
                               values_[id].users.end());
  for (const ValueId moved : values_[id].moved_to) {
    const std::vector<const Op*> more = Users(moved);
    users.insert(users.end(), more.begin(), more.end());
  }
  return users;
}

}  // namespace shardplane
