// What a program under construction gets when a unit or all of it is written:
// buckets, segments' outputs, frees.
#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/instruction_edits.h"
#include "common/merge_collectives.h"
#include "common/program_builder.h"
#include "common/reshard.h"
#include "common/weight_gradients.h"

namespace shardplane {

// --------------------------------------------------------------------- units

void ProgramBuilder::BeginUnit() {
  CloseSegment();
  GatherTogether();
  tape_.push_back(UnitEntry{});
}

// A gather goes to the place of the first one like it, if what it gathers is
// there by then.
void ProgramBuilder::GatherTogether() {
  std::vector<Instruction>& all = program_.instructions;
  std::vector<Instruction> kept;
  absl::flat_hash_map<ValueId, size_t> made_at;  // in `kept`
  std::map<std::tuple<int, DType>, size_t> places;
  for (size_t i = unit_begin_; i < all.size(); ++i) {
    const auto* step = std::get_if<Redistribute>(&all[i]);
    if (step == nullptr || step->kind != RedistributeKind::kAllGather ||
        !options_.fully_sharded[step->mesh_dim] || !is_parameter(step->input)) {
      kept.push_back(std::move(all[i]));
      continue;
    }
    const DType dtype = value(step->input).type.dtype;
    auto [place, is_new] =
        places.try_emplace({step->mesh_dim, dtype}, kept.size());
    const auto made = made_at.find(step->input);
    if (!is_new && made != made_at.end() && made->second >= place->second) {
      place->second = kept.size();
      is_new = true;
    }
    if (is_new) {
      kept.push_back(Bucket{.kind = step->kind, .mesh_dim = step->mesh_dim});
    }
    auto& bucket = std::get<Bucket>(kept[place->second]);
    bucket.inputs.push_back(step->input);
    bucket.outputs.push_back(step->output);
    bucket.dims.push_back(step->from_dim);
    made_at[step->output] = place->second;
  }
  all.resize(unit_begin_);
  for (Instruction& instruction : kept) {
    const auto* bucket = std::get_if<Bucket>(&instruction);
    if (bucket != nullptr && bucket->inputs.size() == 1) {
      instruction = StepOf(*bucket, 0);
    }
    all.push_back(std::move(instruction));
  }
  unit_begin_ = static_cast<int>(all.size());
}

// ------------------------------------------------------------------ the end

namespace {

class ValueSet {
 public:
  explicit ValueSet(size_t values) : has_(values) {}
  void Add(ValueId id) {
    if (id >= 0) has_[id] = true;
  }
  void Add(const std::vector<ValueId>& ids) {
    for (const ValueId id : ids) Add(id);
  }
  bool Has(ValueId id) const { return has_[id]; }

 private:
  std::vector<bool> has_;
};

}  // namespace

void ProgramBuilder::FillOutputs(const std::vector<ValueId>& outputs) {
  ValueSet used(program_.values.size());
  used.Add(outputs);
  used.Add(program_.loss);
  for (const ParameterBinding& p : program_.parameters) {
    used.Add({p.gradient, p.update});
  }
  for (const InputBinding& input : program_.inputs) used.Add(input.gradient);
  for (const Instruction& instruction : program_.instructions) {
    if (const auto* move = std::get_if<Redistribute>(&instruction)) {
      used.Add(move->input);
    } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
      used.Add(bucket->inputs);
    } else if (const auto* sum = std::get_if<Accumulate>(&instruction)) {
      used.Add(sum->inputs);
    } else if (const auto* run = std::get_if<RunSegment>(&instruction)) {
      const Segment& segment = program_.segments[run->segment];
      used.Add(segment.inputs);
      used.Add(segment.differentiable_outputs);
    } else if (const auto* back =
                   std::get_if<RunSegmentBackward>(&instruction)) {
      used.Add(back->output_gradients);
    }
  }
  for (size_t s = 0; s < program_.segments.size(); ++s) {
    for (const ValueId id : made_[s]) {
      if (used.Has(id)) program_.segments[s].outputs.push_back(id);
    }
  }
}

void ProgramBuilder::InsertFrees(const std::vector<ValueId>& outputs) {
  ValueSet kept(program_.values.size());
  kept.Add(outputs);
  kept.Add(program_.loss);
  for (const ParameterBinding& p : program_.parameters) {
    kept.Add({p.value, p.gradient, p.update});
  }
  for (const InputBinding& input : program_.inputs) kept.Add(input.gradient);
  std::vector<int64_t> last_use(program_.values.size(), -1);
  for (size_t i = 0; i < program_.instructions.size(); ++i) {
    for (const ValueId id : ValuesOf(program_, program_.instructions[i])) {
      if (!kept.Has(id)) last_use[id] = static_cast<int64_t>(i);
    }
  }
  std::vector<std::vector<ValueId>> free_after(program_.instructions.size());
  for (size_t id = 0; id < last_use.size(); ++id) {
    if (last_use[id] < 0) continue;
    free_after[last_use[id]].push_back(static_cast<ValueId>(id));
  }
  InstructionEdits edits;
  for (size_t i = 0; i < free_after.size(); ++i) {
    if (free_after[i].empty()) continue;
    edits.InsertAfter(static_cast<int>(i), Free{std::move(free_after[i])});
  }
  edits.Apply(&program_);
}

ShardedProgram ProgramBuilder::Finish(std::vector<ValueId> outputs) {
  CloseSegment();
  if (program_.loss < 0) {
    GatherTogether();
    program_.backward_begin = static_cast<int>(program_.instructions.size());
  }
  Recompute();
  FillOutputs(outputs);
  program_.outputs = outputs;
  MergeCollectives(&program_);
  ReshardAfterForward({options_.fully_sharded, options_.resharded_inputs},
                      &program_);
  if (options_.overlap.input_gradients) {
    DeferWeightGradients(options_.link_costs, &program_);
  }
  Overlap(options_.overlap, &program_);
  InsertFrees(outputs);
  return std::move(program_);
}

}  // namespace shardplane
