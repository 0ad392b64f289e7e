#include "common/program_builder.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/cheapest_redistribution.h"
#include "common/errors.h"
#include "common/op_values.h"

namespace shardplane {
namespace {

// Distinct values that ops use and do not make, in order of first use. `marks`,
// by value, gets `mark` for each that is known, and had it nowhere before.
std::vector<ValueId> InputsOf(const std::vector<Op>& ops, int mark,
                              std::vector<int>* marks) {
  std::vector<ValueId> inputs;
  for (const Op& op : ops) {
    for (const ValueId id : ValuesReadBy(op)) {
      if (std::exchange((*marks)[id], mark) != mark) inputs.push_back(id);
    }
    for (const ValueId id : op.results) (*marks)[id] = mark;
  }
  return inputs;
}

// What `key` was made into before, else what `make` makes of its value now.
template <typename Key, typename Map, typename Make>
ValueId Once(const std::pair<ValueId, Key>& key, Map* made, Make make) {
  const auto [it, is_new] = made->try_emplace(key, -1);
  if (!is_new) return it->second;
  const ValueId id = make(key.first);
  (*made)[key] = id;
  return id;
}

std::vector<ValueId> ResultsOf(const std::vector<Op>& ops) {
  std::vector<ValueId> made;
  for (const Op& op : ops) {
    made.insert(made.end(), op.results.begin(), op.results.end());
  }
  return made;
}

ProgramBuilderOptions Completed(ProgramBuilderOptions options, int ndim) {
  options.fully_sharded.resize(ndim, false);
  options.overlap.chunks &= options.link_costs.beside > 0;
  return options;
}

}  // namespace

ProgramBuilder::ProgramBuilder(DeviceMesh mesh,
                               const ProgramBuilderOptions& options)
    : options_(Completed(options, mesh.ndim())) {
  program_.mesh = std::move(mesh);
}

void ProgramBuilder::Expect(size_t nodes) {
  // A linear has five nodes; it has some ten values, with their gradients, and
  // seven instructions. Memory that is not used is not there.
  program_.values.reserve(2 * nodes);
  info_.reserve(2 * nodes);
  program_.instructions.reserve(2 * nodes);
  tape_.reserve(nodes);
  program_.segments.reserve(nodes / 4);
}

ValueId ProgramBuilder::NewValue(const std::string& name,
                                 const TensorType& type,
                                 const DTensorSpec& spec, bool requires_grad) {
  Value value{name, type, spec};  // before its like may move
  program_.values.push_back(std::move(value));
  Info info;
  info.requires_grad = requires_grad;
  info.vary.assign(mesh().ndim(), false);
  info.open.assign(mesh().ndim(), false);
  info_.push_back(std::move(info));
  return static_cast<ValueId>(program_.values.size()) - 1;
}

ValueId ProgramBuilder::AddParameter(const std::string& fqn,
                                     const TensorType& type,
                                     const DTensorSpec& spec,
                                     bool requires_grad) {
  const ValueId id = NewValue(fqn, type, spec, requires_grad);
  info_[id].parameter = true;
  info_[id].stored = true;
  program_.parameters.push_back({fqn, id, -1});
  return id;
}

void ProgramBuilder::Update(ValueId buffer, ValueId value) {
  const auto binding = std::find_if(
      program_.parameters.begin(), program_.parameters.end(),
      [&](const ParameterBinding& p) { return p.value == buffer; });
  binding->update = value;
}

ValueId ProgramBuilder::AddInput(const std::string& name,
                                 const TensorType& type, bool requires_grad) {
  const ValueId id = NewValue(
      name, type, DTensorSpec::Replicated(mesh().ndim()), requires_grad);
  info_[id].open.assign(mesh().ndim(), true);
  program_.inputs.push_back({id, -1});
  return id;
}

ValueId ProgramBuilder::Random() {
  if (program_.random < 0) {
    program_.random = NewValue("random", {DType::kInt64, {2}},
                               DTensorSpec::Replicated(mesh().ndim()), false);
  }
  return program_.random;
}

bool ProgramBuilder::Claim(ValueId id, int mesh_dim,
                           const Placement& placement) {
  if (!info_[id].open[mesh_dim]) return false;
  info_[id].open[mesh_dim] = false;
  DTensorSpec& spec = program_.values[id].spec;
  spec = WithPlacement(spec, mesh_dim, placement);
  return true;
}

std::vector<ValueId> ProgramBuilder::Origins() const {
  std::vector<ValueId> origins(program_.values.size());
  std::iota(origins.begin(), origins.end(), 0);
  for (const Instruction& instruction : program_.instructions) {
    if (const auto* move = std::get_if<Redistribute>(&instruction)) {
      origins[move->output] = move->input;
    } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
      for (size_t i = 0; i < bucket->inputs.size(); ++i) {
        origins[bucket->outputs[i]] = bucket->inputs[i];
      }
    }
  }
  for (const auto& [asked, sum] : sums_) origins[sum] = asked.first;
  for (size_t id = 0; id < origins.size(); ++id) {  // made in this order
    ValueId& origin = origins[id];
    if (origin < static_cast<ValueId>(id)) origin = origins[origin];
  }
  return origins;
}

void ProgramBuilder::Settle(ValueId id) {
  info_[id].open.assign(mesh().ndim(), false);
}

std::vector<ValueId> ProgramBuilder::EmitOp(
    Op op, const std::vector<Result>& results) {
  for (const Result& result : results) {
    op.results.push_back(
        NewValue(result.name, result.type, result.spec, result.requires_grad));
    open_made_.insert(op.results.back());
    Info& info = info_[op.results.back()];
    for (int m = 0; m < mesh().ndim(); ++m) {
      info.vary[m] = BlocksOf(result.spec.placements[m]).has_replicas();
    }
  }
  std::vector<ValueId> ids = op.results;
  open_.ops.push_back(std::move(op));
  return ids;
}

int ProgramBuilder::AppendSegment(Segment segment) {
  known_in_.resize(program_.values.size());
  segment.inputs =
      InputsOf(segment.ops, static_cast<int>(made_.size()) + 1, &known_in_);
  made_.push_back(ResultsOf(segment.ops));
  program_.segments.push_back(std::move(segment));
  const int index = static_cast<int>(program_.segments.size()) - 1;
  program_.instructions.push_back(RunSegment{index});
  return index;
}

void ProgramBuilder::ReplaceOps(int segment, std::vector<Op> ops) {
  known_in_.resize(program_.values.size());
  Segment& replaced = program_.segments[segment];
  replaced.inputs = InputsOf(ops, -(segment + 1), &known_in_);
  made_[segment] = ResultsOf(ops);
  replaced.ops = std::move(ops);
}

void ProgramBuilder::CloseSegment() {
  if (open_.ops.empty()) return;
  tape_.push_back(SegmentEntry{AppendSegment(std::move(open_))});
  open_ = {};
  open_made_.clear();
}

ValueId ProgramBuilder::EmitMove(ValueId id, const RedistributeStep& step) {
  // What groups share is used by each rank for itself from here on.
  const bool shares_out =
      step.kind == RedistributeKind::kSlice && step.from_dim >= 0;
  if (shares_out && requires_grad(id) && !info_[id].vary[step.mesh_dim]) {
    id = Vary(id, step.mesh_dim);
  }
  if (open_made_.contains(id)) CloseSegment();
  const Value& source = value(id);
  const DTensorSpec from = source.spec;
  const ValueId out =
      NewValue(source.name, source.type, step.result, requires_grad(id));
  info_[out].vary = info_[id].vary;
  // What groups share varies within them, what all of them share does not; nor
  // does what was gathered from parts of a value that varied.
  const bool shared = BlocksOf(from.placements[step.mesh_dim]).has_replicas();
  info_[out].vary[step.mesh_dim] =
      BlocksOf(step.result.placements[step.mesh_dim]).has_replicas();
  info_[out].parameter = info_[id].parameter;
  if (step.kind == RedistributeKind::kAllGather && !shared) {
    info_[out].gathered_from = id;
    info_[out].gathered_along = step.mesh_dim;
  }
  const Redistribute instruction = MoveOf(step, id, out);
  program_.instructions.push_back(instruction);
  tape_.push_back(MoveEntry{instruction, /*vary=*/false});
  return out;
}

ValueId ProgramBuilder::Vary(ValueId id, int mesh_dim) {
  return Once(std::pair(id, mesh_dim), &varied_,
              [&](ValueId from) { return EmitVary(from, mesh_dim); });
}

ValueId ProgramBuilder::EmitVary(ValueId id, int mesh_dim) {
  if (open_made_.contains(id)) CloseSegment();
  // What was gathered along another mesh dim varies as what it was gathered
  // from does: gradients are scattered first, and then as much less is reduced.
  ValueId gathered_from = -1;
  if (info_[id].gathered_from >= 0 && info_[id].gathered_along != mesh_dim) {
    gathered_from = Vary(info_[id].gathered_from, mesh_dim);
  }
  const Value& source = value(id);
  const ValueId out = NewValue(source.name, source.type, source.spec, true);
  info_[out].vary = info_[id].vary;
  info_[out].parameter = info_[id].parameter;
  info_[out].stored = info_[id].stored;
  info_[out].vary[mesh_dim] = true;
  info_[out].gathered_from = gathered_from;
  info_[out].gathered_along = gathered_from < 0 ? -1 : info_[id].gathered_along;
  const Redistribute instruction{RedistributeKind::kAlias, mesh_dim, -1, -1,
                                 ReduceOp::kSum,           id,       out};
  program_.instructions.push_back(instruction);
  tape_.push_back(MoveEntry{instruction, /*vary=*/true});
  return out;
}

ValueId ProgramBuilder::SharedAs(ValueId id, int mesh_dim,
                                 const Placement& placement) {
  const DTensorSpec spec = WithPlacement(value(id).spec, mesh_dim, placement);
  return Once(std::pair(id, spec), &shared_as_, [&](ValueId from) {
    if (requires_grad(from) && !info_[from].vary[mesh_dim]) {
      from = Vary(from, mesh_dim);
    }
    if (open_made_.contains(from)) CloseSegment();
    const Value source = value(from);
    const ValueId out =
        NewValue(source.name, source.type, spec, requires_grad(from));
    info_[out].vary = info_[from].vary;
    info_[out].parameter = info_[from].parameter;
    const Redistribute instruction{.kind = RedistributeKind::kAlias,
                                   .mesh_dim = mesh_dim,
                                   .input = from,
                                   .output = out};
    program_.instructions.push_back(instruction);
    tape_.push_back(MoveEntry{instruction, /*vary=*/false});
    return out;
  });
}

absl::StatusOr<ValueId> ProgramBuilder::Demand(ValueId id,
                                               const DTensorSpec& spec,
                                               const std::vector<bool>& vary) {
  Settle(id);
  if (info_[id].base >= 0) {
    SP_ASSIGN_OR_RETURN(id, RealizeSum(id, spec));
  }
  for (int m = 0; m < mesh().ndim(); ++m) {
    const Placement& at = value(id).spec.placements[m];
    const Placement& to = spec.placements[m];
    const int ranks = mesh().dim_size(m);
    if (at == to || !BlocksOf(at).IsSharedByAll(ranks)) continue;
    if (BlocksOf(to).IsSharedByAll(ranks)) {
      id = SharedAs(id, m, to);
    } else if (ShardDim(to) >= 0 || (!vary.empty() && vary[m])) {
      id = SharedAs(id, m, Replicate{});
    }
  }
  SP_ASSIGN_OR_RETURN(
      const std::vector<RedistributeStep> steps,
      CheapestRedistribution(value(id).spec, spec, value(id).type, mesh(),
                             options_.link_costs, requires_grad(id)));
  for (const RedistributeStep& step : steps) {
    id = Once(std::pair(id, step.result), &demanded_,
              [&](ValueId from) { return EmitMove(from, step); });
  }
  return DemandVary(id, vary);
}

// The mesh dim that it was gathered along comes after others, so that gather
// and vary are next to each other.
ValueId ProgramBuilder::DemandVary(ValueId id, const std::vector<bool>& vary) {
  if (!requires_grad(id)) return id;
  const int last = info_[id].gathered_along;
  const int ndim = static_cast<int>(vary.size());
  const auto demand = [&](int m) {
    if (vary[m] && !info_[id].vary[m]) id = Vary(id, m);
  };
  const auto shares = [&](int m) {
    return BlocksOf(value(id).spec.placements[m]).has_replicas();
  };
  for (int m = 0; m < ndim; ++m) {
    if (m != last && !shares(m)) demand(m);
  }
  if (last >= 0 && ndim > 0) demand(last);
  // Sums of what groups share are made before it is scattered.
  for (int m = 0; m < ndim; ++m) {
    if (m != last && shares(m)) demand(m);
  }
  return id;
}

absl::StatusOr<ValueId> ProgramBuilder::DemandAlong(
    ValueId id, int mesh_dim, const Placement& placement) {
  // A packed cut of that dim is one, too.
  const Placement& at = value(id).spec.placements[mesh_dim];
  if (!IsPendingSum(id) &&
      (at == placement ||
       (ShardDim(at) >= 0 && ShardDim(at) == ShardDim(placement)))) {
    return id;
  }
  return Demand(id, WithPlacement(value(id).spec, mesh_dim, placement), {});
}

ValueId ProgramBuilder::AddAfterReduction(ValueId base, ValueId term,
                                          const std::string& name) {
  const ValueId id = NewValue(name, value(base).type, value(base).spec,
                              requires_grad(base) || requires_grad(term));
  info_[id].base = base;
  info_[id].term = term;
  return id;
}

ValueId ProgramBuilder::EmitAdd(ValueId a, ValueId b, const Result& result) {
  Op op;
  op.target = "aten.add.Tensor";
  op.args = {{ValueRef{a}}, {ValueRef{b}}};
  return EmitOp(std::move(op), {result})[0];
}

absl::StatusOr<ValueId> ProgramBuilder::RealizeSum(ValueId id,
                                                   const DTensorSpec& spec) {
  if (const auto it = sums_.find({id, spec}); it != sums_.end()) {
    return it->second;
  }
  const ValueId base = info_[id].base;
  const ValueId term = info_[id].term;
  const int skip = static_cast<int>(value(id).type.shape.size()) -
                   static_cast<int>(value(term).type.shape.size());
  // What the other term has to be beside the reduced base.
  DTensorSpec term_spec = DTensorSpec::Replicated(mesh().ndim());
  std::vector<bool> term_vary(mesh().ndim(), false);
  std::vector<std::pair<int, int>> shared;  // freshly scattered cuts
  for (int m = 0; m < mesh().ndim(); ++m) {
    const Placement& to = spec.placements[m];
    const int dim = ShardDim(to);
    if (IsPartial(to)) {
      term_spec.placements[m] = to;
    } else if (dim >= 0) {
      const bool has_dim =
          dim >= skip && value(term).type.shape[dim - skip] != 1;
      if (has_dim) {
        term_spec =
            WithPlacement(term_spec, m, Shard{dim - skip, BlocksOf(to)});
      }
      term_vary[m] = !has_dim;
      if (IsPartial(value(base).spec.placements[m])) shared.push_back({m, dim});
    }
  }
  SP_ASSIGN_OR_RETURN(const ValueId reduced, Demand(base, spec, {}));
  ValueId sum = -1;
  if (!shared.empty() && requires_grad(base) && requires_grad(term)) {
    SP_ASSIGN_OR_RETURN(
        sum, RealizeShared(id, reduced, term_spec, term_vary, shared));
  } else {
    SP_ASSIGN_OR_RETURN(const ValueId other,
                        Demand(term, term_spec, term_vary));
    sum = EmitAdd(reduced, other,
                  {value(id).name, value(id).type, spec, requires_grad(id)});
  }
  sums_[{id, spec}] = sum;
  return sum;
}

absl::StatusOr<ValueId> ProgramBuilder::RealizeShared(
    ValueId id, ValueId base, const DTensorSpec& term_spec,
    const std::vector<bool>& term_vary,
    const std::vector<std::pair<int, int>>& cuts) {
  // Along the scattered mesh dims the term stays whole as far as gradients go.
  DTensorSpec whole = term_spec;
  std::vector<bool> vary = term_vary;
  for (const auto& [m, dim] : cuts) {
    whole = WithPlacement(whole, m, Replicate{});
    vary[m] = false;
  }
  SP_ASSIGN_OR_RETURN(const ValueId term, Demand(info_[id].term, whole, vary));
  CloseSegment();
  SP_ASSIGN_OR_RETURN(const std::vector<RedistributeStep> slices,
                      PlanRedistribute(whole, term_spec));
  ValueId local = term;
  for (const RedistributeStep& step : slices) {
    local = EmitMove(local, step);
    tape_.pop_back();  // its gradient takes the shared way
  }
  const ValueId sum = EmitAdd(
      base, local, {value(id).name, value(id).type, value(base).spec, true});
  const int segment = AppendSegment(std::move(open_));
  open_ = {};
  open_made_.clear();
  tape_.push_back(AddedEntry{base, term, sum, cuts, segment});
  return sum;
}

}  // namespace shardplane
