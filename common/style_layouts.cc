#include "common/style_layouts.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/style_edges.h"

namespace shardplane {
namespace {

absl::StatusOr<Placement> InRange(const Placement& placement, int rank,
                                  const Assignment& a,
                                  const std::string& what) {
  absl::StatusOr<Placement> p = Normalize(placement, rank);
  if (p.ok()) return p;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(a.fqn.empty() ? "the root module" : a.fqn, ": ",
                   StyleName(a.style), " of pattern \"", a.pattern, "\" wants ",
                   what, " as ", ToString(placement), ", which its ", rank,
                   " dims do not have; got: ", ToString(placement)),
      {"LAYOUT_OUT_OF_RANGE", {{"fqn", a.fqn}, {"pattern", a.pattern}}});
}

}  // namespace

void Flatten(const Flow& flow, std::vector<ValueId>* out) {
  if (const auto* id = std::get_if<ValueId>(&flow.v)) {
    out->push_back(*id);
  } else if (const auto* list = std::get_if<std::vector<Flow>>(&flow.v)) {
    for (const Flow& item : *list) Flatten(item, out);
  }
}

absl::Status InvalidModule(absl::string_view message, absl::string_view fqn) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(fqn.empty() ? "the root module" : fqn, ": ", message),
      {"MODULE_INVALID", {{"fqn", std::string(fqn)}}});
}

StyleLayouts::StyleLayouts(const GraphModule& module, const ResolvedPlan& plan,
                           ProgramBuilder* builder,
                           std::vector<Diagnostic>* diagnostics)
    : module_(module),
      builder_(builder),
      diagnostics_(diagnostics),
      styles_(module.modules().size()) {
  for (const Assignment& a : plan.assignments) {
    styles_[a.module].push_back(&a);
  }
}

absl::Status StyleLayouts::ApplyInputs(int index, std::vector<Flow>* args,
                                       KeywordFlows* kwargs) {
  for (const Assignment* a : styles_[index]) {
    SP_RETURN_IF_ERROR(Inputs(*a, args, kwargs));
  }
  return absl::OkStatus();
}

bool StyleLayouts::NamesInput(int index, const std::string& name) const {
  for (const Assignment* a : styles_[index]) {
    const StyleEdges edges = EdgesOf(a->style, module_.modules()[index]);
    if (edges.inputs.kwargs.contains(name)) return true;
  }
  return false;
}

absl::Status StyleLayouts::ApplyOutputs(int index, Flow* output) {
  for (const Assignment* a : styles_[index]) {
    SP_RETURN_IF_ERROR(Outputs(*a, output));
  }
  return absl::OkStatus();
}

// One value, claimed to lie somewhere and wanted elsewhere.
absl::Status StyleLayouts::Change(const Assignment& a,
                                  const LayoutChange& change,
                                  const std::string& what, Flow* flow) {
  if (!change.claimed && !change.desired) return absl::OkStatus();
  auto* id = std::get_if<ValueId>(&flow->v);
  if (id == nullptr) {
    return InvalidModule(
        absl::StrCat(StyleName(a.style), " expects a tensor as ", what,
                     "; got: something else"),
        a.fqn);
  }
  const int rank = static_cast<int>(builder_->value(*id).type.shape.size());
  if (change.claimed) {
    SP_ASSIGN_OR_RETURN(const Placement claimed,
                        InRange(*change.claimed, rank, a, what));
    if (!builder_->Claim(*id, a.mesh_dim, claimed)) {
      NoteClaim(a, claimed, builder_->value(*id).spec, what);
    }
  }
  if (change.desired) {
    SP_ASSIGN_OR_RETURN(const Placement desired,
                        InRange(*change.desired, rank, a, what));
    builder_->Claim(*id, a.mesh_dim, Replicate{});
    SP_ASSIGN_OR_RETURN(*id, builder_->DemandAlong(*id, a.mesh_dim, desired));
  }
  return absl::OkStatus();
}

void StyleLayouts::NoteClaim(const Assignment& a, const Placement& claimed,
                             const DTensorSpec& spec, const std::string& what) {
  const Placement& real = spec.placements[a.mesh_dim];
  if (real == claimed ||
      (ShardDim(real) >= 0 && ShardDim(real) == ShardDim(claimed))) {
    return;
  }
  diagnostics_->push_back(
      {Severity::kNote, "CLAIM_DIFFERS",
       absl::StrCat(a.fqn.empty() ? "the root module" : a.fqn, ": ",
                    StyleName(a.style), " says that ", what, " lies as ",
                    ToString(claimed), "; it lies as ", ToString(real),
                    ", and is taken from there"),
       a.fqn, a.pattern});
}

absl::Status StyleLayouts::First(const Assignment& a,
                                 const LayoutChange& change,
                                 std::vector<Flow>* args,
                                 KeywordFlows* kwargs) {
  if (!args->empty()) return Change(a, change, "input 0", &(*args)[0]);
  if (kwargs->size() == 1) {
    auto& [name, flow] = *kwargs->begin();
    return Change(a, change, absl::StrCat("input ", name), &flow);
  }
  return InvalidModule(
      absl::StrCat(StyleName(a.style),
                   " expects a first positional input; got: none"),
      a.fqn);
}

absl::Status StyleLayouts::Prepare(const Assignment& a,
                                   const PrepareModuleInput& p,
                                   std::vector<Flow>* args,
                                   KeywordFlows* kwargs) {
  if (!p.inputs.empty()) {
    if (p.inputs.size() != args->size()) {
      return InvalidModule(
          absl::StrCat(StyleName(a.style), " names layouts for ",
                       p.inputs.size(),
                       " positional inputs; got: ", args->size()),
          a.fqn);
    }
    for (size_t i = 0; i < args->size(); ++i) {
      SP_RETURN_IF_ERROR(
          Change(a, p.inputs[i], absl::StrCat("input ", i), &(*args)[i]));
    }
  }
  for (const auto& [name, change] : p.kwargs) {
    const auto it = kwargs->find(name);
    if (it == kwargs->end()) continue;
    SP_RETURN_IF_ERROR(
        Change(a, change, absl::StrCat("input ", name), &it->second));
  }
  return absl::OkStatus();
}

absl::Status StyleLayouts::Inputs(const Assignment& a, std::vector<Flow>* args,
                                  KeywordFlows* kwargs) {
  const StyleEdges edges = EdgesOf(a.style, module_.modules()[a.module]);
  if (!edges.first_input) return Prepare(a, edges.inputs, args, kwargs);
  if (edges.inputs.kwargs.empty()) {
    return First(a, *edges.first_input, args, kwargs);
  }
  SP_RETURN_IF_ERROR(
      FirstOnes(a, *edges.first_input, edges.inputs.kwargs.size(), args));
  return Prepare(a, edges.inputs, args, kwargs);
}

absl::Status StyleLayouts::FirstOnes(const Assignment& a,
                                     const LayoutChange& change, size_t count,
                                     std::vector<Flow>* args) {
  for (size_t i = 0; i < std::min(args->size(), count); ++i) {
    SP_RETURN_IF_ERROR(
        Change(a, change, absl::StrCat("input ", i), &(*args)[i]));
  }
  return absl::OkStatus();
}

absl::Status StyleLayouts::Changes(const Assignment& a,
                                   const PrepareModuleOutput& p, Flow* output) {
  if (p.outputs.empty()) return absl::OkStatus();
  auto* tuple = std::get_if<std::vector<Flow>>(&output->v);
  const size_t size = tuple == nullptr ? 1 : tuple->size();
  if (p.outputs.size() != size) {
    return InvalidModule(
        absl::StrCat(StyleName(a.style), " names layouts for ",
                     p.outputs.size(), " outputs; got: ", size),
        a.fqn);
  }
  for (size_t i = 0; i < size; ++i) {
    Flow* flow = tuple == nullptr ? output : &(*tuple)[i];
    SP_RETURN_IF_ERROR(
        Change(a, p.outputs[i], absl::StrCat("output ", i), flow));
  }
  return absl::OkStatus();
}

absl::Status StyleLayouts::Outputs(const Assignment& a, Flow* output) {
  const StyleEdges edges = EdgesOf(a.style, module_.modules()[a.module]);
  if (edges.made) {
    auto* tuple = std::get_if<std::vector<Flow>>(&output->v);
    const bool several = tuple != nullptr && !tuple->empty();
    return Change(a, edges.outputs.outputs[0], "output 0",
                  several ? &tuple->front() : output);
  }
  return Changes(a, edges.outputs, output);
}

}  // namespace shardplane
