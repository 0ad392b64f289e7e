// What a program under construction gets when a unit or all of it is written:
// buckets, segments' outputs, frees.
#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/fused_operators.h"
#include "common/merge_collectives.h"
#include "common/program_builder.h"
#include "common/reshard.h"
#include "common/weight_gradients.h"

namespace shardplane {
namespace {

// Values by a place that each has, in one list.
class ByPlace {
 public:
  // `places`: by value; below 0: none.
  ByPlace(const std::vector<int>& places, size_t count)
      : begins_(count + 1, 0) {
    for (const int place : places) {
      if (place >= 0) ++begins_[place + 1];
    }
    std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
    ids_.resize(begins_.back());
    std::vector<int> next = begins_;
    for (size_t id = 0; id < places.size(); ++id) {
      if (places[id] < 0) continue;
      ids_[next[places[id]]++] = static_cast<ValueId>(id);
    }
  }

  absl::Span<const ValueId> At(size_t place) const {
    return absl::MakeConstSpan(ids_).subspan(
        begins_[place], begins_[place + 1] - begins_[place]);
  }

 private:
  std::vector<int> begins_;
  std::vector<ValueId> ids_;
};

}  // namespace

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
  std::vector<Instruction> all = std::move(program_.instructions);
  std::vector<int> last_use(program_.values.size(), -1);
  for (size_t i = 0; i < all.size(); ++i) {
    for (const ValueId id : ValuesOf(program_, all[i])) {
      if (!kept.Has(id)) last_use[id] = static_cast<int>(i);
    }
  }
  const ByPlace last(last_use, all.size());
  program_.instructions.clear();
  program_.instructions.reserve(2 * all.size());
  int backward_begin = -1;
  for (size_t i = 0; i < all.size(); ++i) {
    if (static_cast<int>(i) == program_.backward_begin) {
      backward_begin = static_cast<int>(program_.instructions.size());
    }
    program_.instructions.push_back(std::move(all[i]));
    const absl::Span<const ValueId> ids = last.At(i);
    if (!ids.empty()) {
      program_.instructions.push_back(Free{{ids.begin(), ids.end()}});
    }
  }
  program_.backward_begin = backward_begin < 0
                                ? static_cast<int>(program_.instructions.size())
                                : backward_begin;
}

ShardedProgram ProgramBuilder::Finish(std::vector<ValueId> outputs) {
  CloseSegment();
  if (program_.loss < 0) {
    GatherTogether();
    program_.backward_begin = static_cast<int>(program_.instructions.size());
  }
  Recompute();
  FillOutputs(outputs);
  if (options_.fused_operators) FuseOperators(&program_);
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
