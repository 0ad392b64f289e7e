// The backward pass of a program under construction.
#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/program_builder.h"

namespace shardplane {
namespace {

// As much as PyTorch's data parallel has in a bucket.
constexpr int64_t kBucketBytes = int64_t{25} << 20;

}  // namespace

DTensorSpec ProgramBuilder::GradientSpec(ValueId id) const {
  DTensorSpec spec = value(id).spec;
  for (int m = 0; m < mesh().ndim(); ++m) {
    Placement& p = spec.placements[m];
    if (IsPartial(p)) {
      p = Replicate{};
    } else if (IsReplicate(p) && info_[id].vary[m]) {
      p = Partial{};
    } else if (info_[id].vary[m] && HasReplicas(p)) {
      p = Shard{ShardDim(p), BlocksOf(p).WithPartial(true)};
    }
  }
  return spec;
}

void ProgramBuilder::AddGradient(ValueId id, ValueId gradient) {
  gradients_[id].push_back(gradient);
  if (info_[id].parameter && gradients_[id].size() > 1) unsummed_.push_back(id);
}

// A parameter's parts do not wait for the last one, so that there are two at
// most; but the next thing to be done with other gradients comes first.
void ProgramBuilder::SumGradients() {
  for (const ValueId id : unsummed_) TakeGradient(id);
  unsummed_.clear();
}

ValueId ProgramBuilder::TakeGradient(ValueId id) {
  Gradients& parts = gradients_[id];
  if (parts.empty()) return -1;
  if (parts.size() > 1) {
    const Value& first = value(parts[0]);
    const ValueId sum = NewValue(first.name, first.type, first.spec, false);
    program_.instructions.push_back(
        Accumulate{{parts.begin(), parts.end()}, sum});
    parts = {sum};
  }
  return parts[0];
}

ValueId ProgramBuilder::MoveBack(ValueId gradient, RedistributeKind kind,
                                 int mesh_dim, const Placement& after) {
  if (value(gradient).spec.placements[mesh_dim] == after) return gradient;
  // What groups of ranks have as sums is whole before it goes anywhere else.
  const Placement at = value(gradient).spec.placements[mesh_dim];
  if (BlocksOf(at).partial() && kind != RedistributeKind::kAllReduce &&
      kind != RedistributeKind::kAlias) {
    gradient = MoveBack(gradient, RedistributeKind::kAllReduce, mesh_dim,
                        Shard{ShardDim(at), BlocksOf(at).WithPartial(false)});
  }
  const RedistributeStep step =
      StepFrom(value(gradient).spec, kind, mesh_dim, after);
  const auto [moved, is_new] =
      moved_back_.try_emplace({gradient, step.result}, -1);
  if (is_new) {
    const Value& source = value(gradient);
    moved->second = NewValue(source.name, source.type, step.result, false);
    program_.instructions.push_back(MoveOf(step, gradient, moved->second));
  }
  return moved->second;
}

void ProgramBuilder::Back(const SegmentEntry& entry) {
  SumGradients();
  RunSegmentBackward back{entry.segment, {}, {}};
  std::vector<ValueId> differentiable_outputs;
  for (const ValueId id : made_[entry.segment]) {
    const ValueId gradient = requires_grad(id) ? TakeGradient(id) : -1;
    if (gradient < 0) continue;
    differentiable_outputs.push_back(id);
    back.output_gradients.push_back(gradient);
  }
  std::vector<ValueId> differentiable_inputs;
  for (const ValueId id : program_.segments[entry.segment].inputs) {
    if (requires_grad(id)) differentiable_inputs.push_back(id);
  }
  if (differentiable_outputs.empty() || differentiable_inputs.empty()) return;
  for (const ValueId id : differentiable_inputs) {
    const Value& source = value(id);
    const ValueId gradient = NewValue(absl::StrCat("gradient of ", source.name),
                                      source.type, GradientSpec(id), false);
    back.input_gradients.push_back(gradient);
    AddGradient(id, gradient);
  }
  Segment& segment = program_.segments[entry.segment];
  segment.differentiable_inputs = std::move(differentiable_inputs);
  segment.differentiable_outputs = std::move(differentiable_outputs);
  program_.instructions.push_back(std::move(back));
}

// What was gathered right before it varies along the same mesh dim: the
// gradient goes back over both in one reduce-scatter. -1: nothing.
ValueId ProgramBuilder::ScatteredTo(const Redistribute& vary) const {
  const Info& info = info_[vary.input];
  return info.gathered_along == vary.mesh_dim ? info.gathered_from : -1;
}

void ProgramBuilder::BackVary(const Redistribute& step, ValueId gradient) {
  const ValueId cut = ScatteredTo(step);
  if (cut < 0) {
    AddGradient(step.input,
                MoveBack(gradient, RedistributeKind::kAllReduce, step.mesh_dim,
                         value(step.input).spec.placements[step.mesh_dim]));
    return;
  }
  AddGradient(
      cut, MoveBack(gradient, RedistributeKind::kReduceScatter, step.mesh_dim,
                    value(cut).spec.placements[step.mesh_dim]));
}

// Whether a unit's weight goes back so.
bool ProgramBuilder::Scatters(const MoveEntry& entry) const {
  return entry.vary && options_.fully_sharded[entry.step.mesh_dim] &&
         info_[entry.step.input].parameter && ScatteredTo(entry.step) >= 0;
}

// What a parameter's gradient goes through can wait for others.
bool ProgramBuilder::Defers(const MoveEntry& entry) const {
  const DTensorSpec& spec = value(entry.step.input).spec;
  return entry.vary && HasReplicas(spec.placements[entry.step.mesh_dim]) &&
         (info_[entry.step.input].stored || Scatters(entry));
}

// The value whose gradient it then is.
ValueId ProgramBuilder::TargetOf(const MoveEntry& entry) const {
  return Scatters(entry) ? ScatteredTo(entry.step) : entry.step.input;
}

void ProgramBuilder::ReduceDeferred() {
  while (!deferred_.empty()) {
    // What reads the output of none that still waits; then one bucket for each
    // kind, mesh dim and dtype among them.
    std::set<ValueId> waiting;
    for (const MoveEntry& entry : deferred_) waiting.insert(TargetOf(entry));
    std::map<std::tuple<RedistributeKind, int, DType>, std::vector<MoveEntry>>
        buckets;
    std::vector<MoveEntry> later;
    for (MoveEntry& entry : deferred_) {
      if (waiting.contains(entry.step.output)) {
        later.push_back(entry);
        continue;
      }
      const DType dtype = value(entry.step.input).type.dtype;
      const RedistributeKind kind = Scatters(entry)
                                        ? RedistributeKind::kReduceScatter
                                        : RedistributeKind::kAllReduce;
      buckets[{kind, entry.step.mesh_dim, dtype}].push_back(entry);
    }
    for (const auto& [key, entries] : buckets) {
      ReduceBucket(std::get<0>(key), std::get<1>(key), entries);
    }
    deferred_ = std::move(later);
  }
  deferred_bytes_ = 0;
}

void ProgramBuilder::ReduceBucket(RedistributeKind kind, int mesh_dim,
                                  const std::vector<MoveEntry>& entries) {
  Bucket bucket{.kind = kind, .mesh_dim = mesh_dim};
  std::vector<ValueId> targets;
  for (const MoveEntry& entry : entries) {
    const ValueId gradient = TakeGradient(entry.step.output);
    if (gradient < 0) continue;
    bucket.inputs.push_back(gradient);
    targets.push_back(TargetOf(entry));
    if (kind == RedistributeKind::kReduceScatter) {
      bucket.dims.push_back(
          ShardDim(value(targets.back()).spec.placements[mesh_dim]));
    }
  }
  if (bucket.inputs.empty()) return;
  if (bucket.inputs.size() == 1) {
    AddGradient(targets[0],
                MoveBack(bucket.inputs[0], kind, mesh_dim,
                         value(targets[0]).spec.placements[mesh_dim]));
    return;
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const Value& source = value(bucket.inputs[i]);
    const ValueId out =
        NewValue(source.name, source.type,
                 WithPlacement(source.spec, mesh_dim,
                               value(targets[i]).spec.placements[mesh_dim]),
                 false);
    bucket.outputs.push_back(out);
    AddGradient(targets[i], out);
  }
  program_.instructions.push_back(std::move(bucket));
}

// Gradients that are scattered make room; others wait for a full bucket.
void ProgramBuilder::Back(const UnitEntry&) {
  if (std::any_of(deferred_.begin(), deferred_.end(),
                  [this](const MoveEntry& e) { return Scatters(e); })) {
    ReduceDeferred();
  }
}

void ProgramBuilder::Back(const MoveEntry& entry) {
  const Redistribute& step = entry.step;
  if (!requires_grad(step.input)) return;
  if (Defers(entry)) {
    const Value& whole = value(step.input);
    deferred_.push_back(entry);
    deferred_bytes_ += LargestBytes(whole.type, whole.spec, mesh());
    if (deferred_bytes_ >= kBucketBytes) ReduceDeferred();
    return;
  }
  const ValueId gradient = TakeGradient(step.output);
  if (gradient < 0) return;
  if (entry.vary) return BackVary(step, gradient);
  RedistributeStep forward;
  forward.kind = step.kind;
  forward.mesh_dim = step.mesh_dim;
  forward.from_dim = step.from_dim;
  forward.to_dim = step.to_dim;
  RedistributeStep back = Transpose(forward);
  // Of what varies each rank has its own part of the gradient.
  const Placement to = GradientSpec(step.input).placements[back.mesh_dim];
  if (step.kind == RedistributeKind::kSlice && IsPartial(to)) {
    back.kind = RedistributeKind::kSpread;
  }
  AddGradient(step.input, MoveBack(gradient, back.kind, back.mesh_dim, to));
}

void ProgramBuilder::Back(const AddedEntry& entry) {
  const ValueId gradient = TakeGradient(entry.sum);
  if (gradient < 0) return;
  AddGradient(entry.base, gradient);
  ValueId whole = gradient;
  for (auto cut = entry.cuts.rbegin(); cut != entry.cuts.rend(); ++cut) {
    whole =
        MoveBack(whole, RedistributeKind::kAllGather, cut->first, Replicate{});
  }
  // The term was broadcast: its gradient is the sum over the dims it lacks.
  const Value term = value(entry.term);
  ProgramArgumentList sizes;
  for (int d = 0; d < static_cast<int>(term.type.shape.size()); ++d) {
    sizes.push_back({LocalSize{{CutsOfDim(term.type.shape, term.spec, d)}}});
  }
  Op op;
  op.target = "aten.sum_to_size.default";
  op.args = {{ValueRef{whole}}, {std::move(sizes)}};
  const ValueId result = NewValue(absl::StrCat("gradient of ", term.name),
                                  term.type, GradientSpec(entry.term), false);
  op.results = {result};
  Segment segment;
  segment.ops.push_back(std::move(op));
  AppendSegment(std::move(segment));
  AddGradient(entry.term, result);
}

absl::Status ProgramBuilder::Backward(ValueId loss) {
  CloseSegment();
  GatherTogether();
  program_.loss = loss;
  program_.backward_begin = static_cast<int>(program_.instructions.size());
  if (!requires_grad(loss)) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     "the loss depends on no parameter or input that requires "
                     "a gradient",
                     {"LOSS_WITHOUT_GRADIENT", {{"field", "signature.loss"}}});
  }
  const Value value_of_loss = value(loss);
  const ValueId ones = NewValue("gradient of the loss", value_of_loss.type,
                                GradientSpec(loss), false);
  program_.instructions.push_back(Ones{ones});
  gradients_.resize(program_.values.size());
  AddGradient(loss, ones);
  for (auto entry = tape_.rbegin(); entry != tape_.rend(); ++entry) {
    std::visit([this](const auto& e) { Back(e); }, *entry);
  }
  ReduceDeferred();
  for (ParameterBinding& p : program_.parameters) {
    if (requires_grad(p.value)) p.gradient = TakeGradient(p.value);
  }
  for (InputBinding& input : program_.inputs) {
    if (requires_grad(input.value)) input.gradient = TakeGradient(input.value);
  }
  return absl::OkStatus();
}

}  // namespace shardplane
