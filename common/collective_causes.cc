#include "common/collective_causes.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/fqn.h"
#include "common/op_values.h"
#include "common/style_edges.h"
#include "common/value_flow.h"

namespace shardplane {
namespace {

constexpr size_t kNamesShown = 3;

// What a partial result is the sum of.
struct SumRow {
  absl::string_view target;  // without namespace and overload
  absl::string_view what;
};
constexpr SumRow kSums[] = {
    {"linear", "sum of a rowwise linear"},
    {"mm", "sum of a matrix product over a cut dim"},
    {"bmm", "sum of a matrix product over a cut dim"},
    {"matmul", "sum of a matrix product over a cut dim"},
    {"addmm", "sum of a matrix product over a cut dim"},
    {"baddbmm", "sum of a matrix product over a cut dim"},
    {"einsum", "sum of a product over a cut dim"},
    {"embedding", "sum of an embedding whose rows are cut"},
    {"class_max", "maxima of the logits over cut classes"},
    {"cross_entropy_terms", "sums of the cross-entropy over cut classes"},
};

// "aten.linear.default" -> "linear"
absl::string_view BareName(absl::string_view target) {
  const std::vector<absl::string_view> parts = absl::StrSplit(target, '.');
  return parts.size() < 2 ? target : parts[1];
}

std::string SumText(const Op* op) {
  if (op == nullptr) return "sum of an input's parts";
  const absl::string_view name = BareName(op->target);
  for (const SumRow& row : kSums) {
    if (row.target == name) return std::string(row.what);
  }
  if (op->fqn == "loss") return "sum of the loss over the ranks' parts";
  return absl::StrCat("sum of ", name, " over a cut dim");
}

// Names as seen from the module that holds them all, the first few.
std::string Names(const std::vector<std::string>& fqns,
                  const std::string& common) {
  std::vector<std::string> names;
  for (const std::string& fqn : fqns) {
    if (names.size() == kNamesShown && fqns.size() > kNamesShown + 1) break;
    names.push_back(fqn.empty() ? "the root module"
                    : fqns.size() == 1 || common.empty() || fqn == common
                        ? fqn
                        : fqn.substr(common.size() + 1));
  }
  const size_t more = fqns.size() - names.size();
  return absl::StrCat(absl::StrJoin(names, ", "),
                      more > 0 ? absl::StrCat(" and ", more, " more") : "");
}

template <typename Range, typename FqnOf>
std::vector<std::string> Distinct(const Range& range, FqnOf fqn_of) {
  absl::btree_set<std::string> seen;
  std::vector<std::string> fqns;
  for (const auto& item : range) {
    std::string fqn = fqn_of(item);
    if (seen.insert(fqn).second) fqns.push_back(std::move(fqn));
  }
  return fqns;
}

std::vector<std::string> ModulesOf(const std::vector<const Op*>& ops) {
  return Distinct(ops, [](const Op* op) { return op->fqn; });
}

// What the styles of a module ask of the values at its edges.
enum class Edge { kInput, kOutput };

std::vector<Placement> WantedAt(Edge edge, const StyleEdges& edges) {
  std::vector<LayoutChange> changes;
  if (edge == Edge::kOutput) {
    changes = edges.outputs.outputs;
  } else {
    if (edges.first_input) changes.push_back(*edges.first_input);
    changes.insert(changes.end(), edges.inputs.inputs.begin(),
                   edges.inputs.inputs.end());
    for (const auto& [name, change] : edges.inputs.kwargs) {
      changes.push_back(change);
    }
  }
  std::vector<Placement> wanted;
  for (const LayoutChange& change : changes) {
    if (change.desired) wanted.push_back(*change.desired);
  }
  return wanted;
}

class Explainer {
 public:
  Explainer(const GraphModule& module, const ResolvedPlan& plan,
            const ShardedProgram& program)
      : module_(module),
        program_(program),
        flow_(program),
        styles_(module.modules().size()) {
    for (const Assignment& a : plan.assignments) {
      styles_[a.module].push_back(&a);
    }
  }

  std::vector<CausedCollective> Run() {
    std::vector<CausedCollective> caused;
    for (const Phase phase : {Phase::kForward, Phase::kBackward}) {
      const std::vector<CollectiveRecord> records =
          Collectives(program_, phase, program_.mesh.Coordinate(0));
      size_t next = 0;
      ForEach(phase, [&](CausedCollective cause) {
        cause.phase = phase;
        cause.record = records[next++];
        if (cause.fqn.empty()) cause.fqn = CommonModule(cause.modules);
        caused.push_back(std::move(cause));
      });
    }
    return caused;
  }

 private:
  // The collectives of one phase, as Collectives() picks them.
  template <typename Visit>
  void ForEach(Phase phase, Visit visit) const {
    const bool forward = phase == Phase::kForward;
    const int size = static_cast<int>(program_.instructions.size());
    const int end = forward ? program_.backward_begin : size;
    for (int i = forward ? 0 : program_.backward_begin; i < end; ++i) {
      const Instruction& instruction = program_.instructions[i];
      if (const auto step = AsStep(instruction)) {
        if (!IsCollective(step->kind) || IsAlone(step->mesh_dim)) continue;
        visit(forward                        ? Forward(*step)
              : flow_.IsForward(step->input) ? Again(Forward(*step))
                                             : Backward(*step));
      } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
        if (IsAlone(bucket->mesh_dim)) continue;
        visit(IsActivation(*bucket)                ? Kept(*bucket)
              : forward                            ? Gathered(*bucket)
              : flow_.IsForward(bucket->inputs[0]) ? Again(Gathered(*bucket))
                                                   : Gradients(*bucket));
      }
    }
  }

  // Of one tensor; what runs beside others' work is a bucket then, too.
  static std::optional<Redistribute> AsStep(const Instruction& instruction) {
    if (const auto* step = std::get_if<Redistribute>(&instruction)) {
      return *step;
    }
    const auto* bucket = std::get_if<Bucket>(&instruction);
    if (bucket == nullptr || bucket->again || bucket->inputs.size() > 1) {
      return std::nullopt;
    }
    return StepOf(*bucket, 0);
  }

  // In the backward pass, which makes it anew.
  static CausedCollective Again(CausedCollective cause) {
    absl::StrAppend(&cause.why, ", again, for backward");
    return cause;
  }

  bool IsAlone(int mesh_dim) const {
    return program_.mesh.dim_size(mesh_dim) == 1;
  }

  std::string OwnerOf(ValueId id) const {
    const Op* op = flow_.MadeBy(flow_.Origin(id));
    return op == nullptr ? "" : op->fqn;
  }

  // The op that made a value, before it was split for those that use it.
  const Op* SourceOf(ValueId id, const std::vector<const Op*>& users) const {
    const Op* op = flow_.MadeBy(flow_.Origin(id));
    if (op == nullptr || op->target != "aten.split.Tensor" ||
        std::ranges::none_of(
            users, [op](const Op* user) { return user->fqn == op->fqn; })) {
      return op;
    }
    return flow_.MadeBy(flow_.Origin(ValuesReadBy(*op)[0]));
  }

  // The outermost module around `fqn` and not around `other` whose style asks
  // for `placement` where values enter or leave it.
  const Assignment* StyleAt(Edge edge, const std::string& fqn,
                            const std::optional<std::string>& other,
                            const Redistribute& step) const {
    const Value& value = program_.values[step.output];
    const int rank = static_cast<int>(value.type.shape.size());
    const Assignment* found = nullptr;
    for (std::string at = fqn;; at = SplitFqn(at).first) {
      if (other && IsWithin(at, *other)) break;
      const int index = module_.ModuleIndex(at);
      if (index >= 0) {
        for (const Assignment* a : styles_[index]) {
          if (a->mesh_dim != step.mesh_dim) continue;
          const StyleEdges edges = EdgesOf(a->style, module_.modules()[index]);
          for (const Placement& wish : WantedAt(edge, edges)) {
            const absl::StatusOr<Placement> p = Normalize(wish, rank);
            if (p.ok() && *p == value.spec.placements[step.mesh_dim]) found = a;
          }
        }
      }
      if (at.empty()) break;
    }
    return found;
  }

  CausedCollective Forward(const Redistribute& step) const {
    CausedCollective cause{.value = step.input};
    const Placement& from =
        program_.values[step.input].spec.placements[step.mesh_dim];
    const Placement& to =
        program_.values[step.output].spec.placements[step.mesh_dim];
    const std::vector<const Op*> users = flow_.Users(step.output);
    if (const ParameterBinding* parameter = flow_.ParameterOf(step.input)) {
      cause.modules = ModulesOf(users);
      cause.parameters = {parameter->fqn};
      cause.why = absl::StrCat(parameter->fqn, " is stored as ", ToString(from),
                               " and used as ", ToString(to));
      return cause;
    }
    if (IsPartial(from)) {
      cause.modules = {OwnerOf(step.input)};
      cause.why = SumText(flow_.MadeBy(flow_.Origin(step.input)));
      if (IsReplicate(to)) return cause;
      absl::StrAppend(&cause.why, ", left as ", ToString(to));
      return cause;
    }
    return ForwardLayout(step, users);
  }

  // A cut that is changed or undone: a style wants it, or an op needs it.
  CausedCollective ForwardLayout(const Redistribute& step,
                                 const std::vector<const Op*>& users) const {
    CausedCollective cause{.value = step.input, .modules = ModulesOf(users)};
    const std::string common = CommonModule(cause.modules);
    const Op* source = SourceOf(step.input, users);
    const auto elsewhere = [&](const Assignment* a) {
      return std::none_of(users.begin(), users.end(), [&](const Op* op) {
        return IsWithin(a->fqn, op->fqn);
      });
    };
    const Assignment* out =
        source == nullptr
            ? nullptr
            : StyleAt(Edge::kOutput, source->fqn, std::nullopt, step);
    if (out != nullptr && (users.empty() || elsewhere(out))) {
      cause.modules = {out->fqn};
      cause.why =
          absl::StrCat("output layout asked by ", StyleName(out->style));
      return cause;
    }
    const std::optional<std::string> owner =
        source == nullptr ? std::nullopt
                          : std::optional<std::string>(source->fqn);
    for (const Op* user : users) {
      const Assignment* in = StyleAt(Edge::kInput, user->fqn, owner, step);
      if (in == nullptr) continue;
      const bool all = IsWithin(in->fqn, common);
      cause.why = absl::StrCat("layout asked by ", StyleName(in->style), " of ",
                               all && !in->fqn.empty() ? in->fqn
                               : all                   ? "the root module"
                                     : Names(cause.modules, common));
      if (all) cause.modules = {in->fqn};
      return cause;
    }
    cause.why = NeedText(step, cause.modules, common, users);
    return cause;
  }

  std::string NeedText(const Redistribute& step,
                       const std::vector<std::string>& modules,
                       const std::string& common,
                       const std::vector<const Op*>& users) const {
    const int dim = step.from_dim;
    const std::string what =
        step.to_dim >= 0
            ? absl::StrCat("cut of dim ", dim, " moved to dim ", step.to_dim)
            : absl::StrCat("dim ", dim, " made whole");
    if (users.empty()) return absl::StrCat(what, " for the module's output");
    return absl::StrCat(what, " for ", BareName(users[0]->target), " in ",
                        Names(modules, common));
  }

  CausedCollective Backward(const Redistribute& step) const {
    CausedCollective cause{.value = step.input};
    const Redistribute* move = flow_.TransposeOf(step);
    const ValueId of = flow_.GradientOf(step.input);
    if (move == nullptr) {
      cause.modules = {of < 0 ? "" : OwnerOf(of)};
      cause.why = "a gradient that is needed otherwise";
      return cause;
    }
    const ParameterBinding* parameter = flow_.ParameterOf(move->input);
    if (parameter != nullptr) {
      cause.modules = {SplitFqn(parameter->fqn).first};
      cause.parameters = {parameter->fqn};
      cause.why = absl::StrCat("gradient of ", parameter->fqn,
                               move->kind == RedistributeKind::kAlias
                                   ? ": each rank has a part of its sum"
                                   : ", as the parameter is stored");
      return cause;
    }
    if (move->kind == RedistributeKind::kAlias) {
      cause.modules = ModulesOf(flow_.Users(move->output));
      cause.why =
          absl::StrCat("gradient of the input of ",
                       Names(cause.modules, CommonModule(cause.modules)));
      if (step.kind == RedistributeKind::kReduceScatter) {
        absl::StrAppend(&cause.why, ", cut as that was before it was gathered");
      }
      return cause;
    }
    return WayBack(*move);
  }

  CausedCollective WayBack(const Redistribute& move) const {
    CausedCollective cause = Forward(move);
    cause.value = move.output;
    const std::string owner = OwnerOf(move.input);
    if (move.kind == RedistributeKind::kReduceScatter) {
      cause.why = absl::StrCat("gradient of the output of ",
                               owner.empty() ? "the root module" : owner,
                               ", which forward scatters");
      return cause;
    }
    if (move.kind == RedistributeKind::kSlice) {
      const std::vector<const Op*> users = flow_.Users(move.output);
      cause.modules = ModulesOf(users);
      cause.why =
          absl::StrCat("gradient of the input of ",
                       Names(cause.modules, CommonModule(cause.modules)),
                       ", of which each rank uses its part");
      return cause;
    }
    cause.why = absl::StrCat("gradient, on its way back: ", cause.why);
    return cause;
  }

  // The weights of several parameters.
  CausedCollective Gathered(const Bucket& bucket) const {
    CausedCollective cause{.value = bucket.inputs[0]};
    std::vector<const Op*> users;
    for (size_t i = 0; i < bucket.inputs.size(); ++i) {
      const ParameterBinding* parameter = flow_.ParameterOf(bucket.inputs[i]);
      if (parameter != nullptr) cause.parameters.push_back(parameter->fqn);
      const std::vector<const Op*> more = flow_.Users(bucket.outputs[i]);
      users.insert(users.end(), more.begin(), more.end());
    }
    cause.modules = ModulesOf(users);
    cause.why = absl::StrCat("bucket of ", cause.parameters.size(),
                             " parameters, of which each rank has a part: ",
                             Names(cause.parameters, ""));
    return cause;
  }

  // Whether an activation gets its memory back.
  bool IsActivation(const Bucket& bucket) const {
    return bucket.again && flow_.ParameterOf(bucket.outputs[0]) == nullptr;
  }

  CausedCollective Kept(const Bucket& bucket) const {
    const ValueId value = bucket.outputs[0];
    std::vector<const Op*> ops = flow_.Users(value);
    ops.push_back(flow_.MadeBy(flow_.Origin(value)));
    const Assignment* nearest = nullptr;
    for (const std::vector<const Assignment*>& of_module : styles_) {
      for (const Assignment* style : of_module) {
        if (std::holds_alternative<InputReshard>(style->style.kind) &&
            std::any_of(ops.begin(), ops.end(),
                        [style](const Op* op) {
                          return op != nullptr && IsWithin(style->fqn, op->fqn);
                        }) &&
            (nearest == nullptr || nearest->fqn.size() <= style->fqn.size())) {
          nearest = style;
        }
      }
    }
    const std::string fqn = nearest == nullptr ? "" : nearest->fqn;
    return {.value = bucket.inputs[0],
            .modules = {fqn},
            .why = absl::StrCat("kept in parts for the backward pass, asked by "
                                "InputReshard of ",
                                fqn.empty() ? "the root module" : fqn)};
  }

  CausedCollective Gradients(const Bucket& bucket) const {
    CausedCollective cause{.value = bucket.inputs[0]};
    std::vector<std::string>& parameters = cause.parameters;
    for (const ValueId id : bucket.inputs) {
      const ValueId of = flow_.GradientOf(id);
      const ParameterBinding* parameter =
          of < 0 ? nullptr : flow_.ParameterOf(of);
      if (parameter != nullptr) parameters.push_back(parameter->fqn);
    }
    cause.modules = Distinct(
        parameters, [](const std::string& fqn) { return SplitFqn(fqn).first; });
    cause.why = absl::StrCat(
        "bucket of the gradients of ", parameters.size(),
        " parameters, of which each rank has a part: ", Names(parameters, ""),
        bucket.kind == RedistributeKind::kReduceScatter
            ? ", scattered as the parameters are stored"
            : "");
    return cause;
  }

  const GraphModule& module_;
  const ShardedProgram& program_;
  const ValueFlow flow_;
  std::vector<std::vector<const Assignment*>> styles_;  // by module
};

}  // namespace

std::vector<CausedCollective> CausesOfCollectives(
    const GraphModule& module, const ResolvedPlan& plan,
    const ShardedProgram& program) {
  return Explainer(module, plan, program).Run();
}

}  // namespace shardplane
