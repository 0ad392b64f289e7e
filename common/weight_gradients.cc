#include "common/weight_gradients.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/instruction_edits.h"
#include "common/op_memory.h"
#include "common/op_values.h"
#include "common/tensor_spec.h"

namespace shardplane {
namespace {

using ValueSet = absl::flat_hash_set<ValueId>;

// Whether a result surely asks for a gradient where the first operand does.
bool PassesOn(const Op& op) {
  const OpMemory& memory = MemoryOf(op.target);
  if (memory.name.empty() || op.target == "aten.detach.default") return false;
  return memory.keeps != Keep::kNothing || memory.passes_gradient ||
         memory.result != ResultMemory::kNew;
}

// The weights of a segment whose gradients can wait.
std::vector<ValueId> LateWeights(const Segment& segment) {
  absl::flat_hash_map<ValueId, int> uses;
  ValueSet weights;  // of linear ops
  for (const Op& op : segment.ops) {
    const std::vector<ValueId> operands = ValuesReadBy(op);
    for (const ValueId id : operands) ++uses[id];
    if (op.target == "aten.linear.default") weights.insert(operands[1]);
  }
  ValueSet asking;  // surely, and without the weights
  for (const ValueId id : segment.differentiable_inputs) {
    if (!weights.contains(id)) asking.insert(id);
  }
  std::vector<ValueId> late;
  for (const Op& op : segment.ops) {
    const std::vector<ValueId> operands = ValuesReadBy(op);
    if (operands.empty() || !asking.contains(operands[0])) continue;
    if (PassesOn(op)) asking.insert(op.results.begin(), op.results.end());
    if (op.target != "aten.linear.default" || uses[operands[1]] != 1 ||
        std::ranges::find(segment.differentiable_inputs, operands[1]) ==
            segment.differentiable_inputs.end()) {
      continue;
    }
    late.push_back(operands[1]);
  }
  return late;
}

class Deferrer {
 public:
  Deferrer(const LinkCosts& costs, ShardedProgram* program)
      : costs_(costs), program_(*program) {}

  void Run() {
    const int size = static_cast<int>(program_.instructions.size());
    for (int i = program_.backward_begin; i < size; ++i) {
      auto* back = std::get_if<RunSegmentBackward>(&program_.instructions[i]);
      if (back == nullptr) continue;
      const int reduction = ReductionAfter(i, *back);
      if (reduction >= 0) Defer(reduction, back);
    }
    edits_.Apply(&program_);
  }

 private:
  // The first thing to be done with what instruction `i` has made, if that is
  // a reduction of it that pays; else -1.
  int ReductionAfter(int i, const RunSegmentBackward& back) const {
    const ValueSet made(back.input_gradients.begin(),
                        back.input_gradients.end());
    const int size = static_cast<int>(program_.instructions.size());
    for (int k = i + 1; k < size; ++k) {
      const Instruction& next = program_.instructions[k];
      const std::vector<ValueId> touched = ValuesOf(program_, next);
      if (std::ranges::none_of(touched,
                               [&](ValueId id) { return made.contains(id); })) {
        continue;
      }
      const auto* step = std::get_if<Redistribute>(&next);
      return step != nullptr && Pays(*step) ? k : -1;
    }
    return -1;
  }

  bool Pays(const Redistribute& step) const {
    if (step.kind != RedistributeKind::kAllReduce &&
        step.kind != RedistributeKind::kReduceScatter) {
      return false;
    }
    const Value& value = program_.values[step.input];
    const auto bytes = static_cast<double>(
        LargestBytes(value.type, value.spec, program_.mesh));
    return BytesUs(costs_, step.kind, program_.mesh.dim_size(step.mesh_dim),
                   bytes) > costs_.latency_us;
  }

  void Defer(int reduction, RunSegmentBackward* back) {
    const Segment& segment = program_.segments[back->segment];
    const ValueId reduced =
        std::get<Redistribute>(program_.instructions[reduction]).input;
    RunWeightGradients late{.segment = back->segment};
    for (const ValueId weight : LateWeights(segment)) {
      const auto at = std::ranges::find(segment.differentiable_inputs, weight);
      ValueId& gradient =
          back->input_gradients[at - segment.differentiable_inputs.begin()];
      if (gradient == reduced) continue;
      late.weights.push_back(weight);
      late.gradients.push_back(gradient);
      gradient = -1;
    }
    if (!late.weights.empty()) edits_.InsertAfter(reduction, std::move(late));
  }

  const LinkCosts& costs_;
  ShardedProgram& program_;
  InstructionEdits edits_;
};

}  // namespace

void DeferWeightGradients(const LinkCosts& costs, ShardedProgram* program) {
  Deferrer(costs, program).Run();
}

}  // namespace shardplane
