#include "common/merge_collectives.h"

#include <variant>
#include <vector>

#include "common/instruction_edits.h"
#include "common/redistribute.h"

namespace shardplane {
namespace {

// Whether a step along one mesh dim can be part of another: what a vary's
// aliases say is not only where a value lies.
bool Moves(const Redistribute* step) {
  return step != nullptr && step->kind != RedistributeKind::kAlias &&
         step->kind != RedistributeKind::kMask;
}

class Merger {
 public:
  explicit Merger(ShardedProgram* program)
      : program_(*program),
        uses_(program->values.size(), 0),
        made_by_(program->values.size(), -1) {}

  void Run() {
    if (!FindSteps()) return;
    Count();
    const int size = static_cast<int>(program_.instructions.size());
    InstructionEdits edits;
    for (int i = 0; i < size; ++i) {
      auto* step = std::get_if<Redistribute>(&program_.instructions[i]);
      if (!Moves(step)) continue;
      // What it is merged with may be merged with what came before.
      for (int before = Mergeable(*step, i); before >= 0;
           before = Mergeable(*step, i)) {
        const auto& first =
            std::get<Redistribute>(program_.instructions[before]);
        if (!Merge(first, step)) break;
        edits.Drop(before);
        if (step->kind == RedistributeKind::kAlias) break;
      }
    }
    edits.Apply(&program_);
  }

 private:
  // Whether any follows another along its mesh dim; most programs end here.
  bool FindSteps() {
    bool follows = false;
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      const auto* step = std::get_if<Redistribute>(&program_.instructions[i]);
      if (!Moves(step)) continue;
      made_by_[step->output] = static_cast<int>(i);
      follows |= Before(*step) >= 0;
    }
    return follows;
  }
  // The step along the same mesh dim that made its input; -1: none.
  int Before(const Redistribute& step) const {
    const int before = made_by_[step.input];
    if (before < 0) return -1;
    const auto& first = std::get<Redistribute>(program_.instructions[before]);
    return first.mesh_dim == step.mesh_dim ? before : -1;
  }

  void Use(ValueId id) {
    if (id >= 0) ++uses_[id];
  }
  void Count() {
    for (const Instruction& instruction : program_.instructions) {
      for (const ValueId id : ValuesOf(program_, instruction)) Use(id);
    }
    for (const Segment& segment : program_.segments) {
      for (const ValueId id : segment.inputs) Use(id);
    }
    for (const ValueId id : program_.outputs) Use(id);
    Use(program_.loss);
    for (const ParameterBinding& p : program_.parameters) {
      for (const ValueId id : {p.value, p.gradient, p.update}) Use(id);
    }
    for (const InputBinding& input : program_.inputs) {
      Use(input.value);
      Use(input.gradient);
    }
  }

  // The step that made its input, for it alone; -1: none. `i`: where it stands,
  // in the same phase.
  int Mergeable(const Redistribute& step, int i) const {
    const int before = Before(step);
    if (before < 0 || uses_[step.input] != 2) return -1;
    const bool backward = i >= program_.backward_begin;
    if ((before >= program_.backward_begin) != backward) return -1;
    return before;
  }

  // Makes `second` what both are together.
  bool Merge(const Redistribute& first, Redistribute* second) {
    const auto steps = PlanRedistribute(program_.values[first.input].spec,
                                        program_.values[second->output].spec);
    if (!steps.ok() || steps->size() > 1) return false;
    *second = steps->empty()
                  ? Redistribute{.kind = RedistributeKind::kAlias,
                                 .mesh_dim = second->mesh_dim,
                                 .input = first.input,
                                 .output = second->output}
                  : MoveOf(steps->front(), first.input, second->output);
    return true;
  }

  ShardedProgram& program_;
  std::vector<int> uses_;     // its making counts, too
  std::vector<int> made_by_;  // instruction, of a step that moves
};

}  // namespace

void MergeCollectives(ShardedProgram* program) { Merger(program).Run(); }

}  // namespace shardplane
