#include "common/explain.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/closest_name.h"
#include "common/collective_causes.h"
#include "common/errors.h"
#include "common/fqn.h"
#include "common/pairing.h"
#include "common/plan_matching.h"
#include "common/report.h"
#include "common/style_edges.h"

namespace shardplane {
namespace {

absl::Status Unknown(const GraphModule& module, absl::string_view fqn) {
  std::vector<std::string> names;
  for (const ModuleNode& node : module.modules()) names.push_back(node.fqn);
  for (const Parameter& p : module.parameters()) names.push_back(p.fqn);
  const std::string closest = ClosestName(fqn, names);
  ErrorInfo info{.reason = "FQN_NOT_FOUND",
                 .metadata = {{"field", "fqn"}, {"fqn", std::string(fqn)}}};
  if (!closest.empty()) info.metadata["suggestion"] = closest;
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat("fqn: expected the name of a module, parameter or buffer",
                   closest.empty()
                       ? ""
                       : absl::StrCat(" (did you mean \"", closest, "\"?)"),
                   ", got: \"", fqn, "\""),
      info);
}

class Explainer {
 public:
  explicit Explainer(const ExplainSubject& subject) : subject_(subject) {}

  absl::StatusOr<Explanation> Run(absl::string_view fqn) {
    Explanation result;
    result.fqn = std::string(fqn);
    int owner = subject_.module.ModuleIndex(fqn);
    const Parameter* parameter = subject_.module.FindParameter(fqn);
    if (owner < 0 && parameter == nullptr) {
      return Unknown(subject_.module, fqn);
    }
    if (owner < 0) {
      result.kind = parameter->buffer ? Explanation::Kind::kBuffer
                                      : Explanation::Kind::kParameter;
      owner = subject_.module.ModuleIndex(SplitFqn(fqn).first);
      result.tensors = {TensorOf(*parameter)};
    } else {
      parameter = nullptr;
      for (const int index : subject_.module.ParametersOf(owner)) {
        result.tensors.push_back(TensorOf(subject_.module.parameters()[index]));
      }
    }
    result.module_type = subject_.module.modules()[owner].type;
    result.matches = Matches(owner);
    result.bytes = Bytes(fqn, parameter);
    AddCollectives(fqn, parameter, &result);
    for (const Diagnostic& diagnostic : subject_.diagnostics) {
      const std::string& name = subject_.module.modules()[owner].fqn;
      const bool known =
          std::find(result.diagnostics.begin(), result.diagnostics.end(),
                    diagnostic) != result.diagnostics.end();
      if (!known && !name.empty() && diagnostic.fqn == name) {
        result.diagnostics.push_back(diagnostic);
      }
    }
    return result;
  }

 private:
  int IndexOf(const Parameter& parameter) const {
    return static_cast<int>(&parameter - subject_.module.parameters().data());
  }
  const DTensorSpec& SpecOf(const Parameter& parameter) const {
    return subject_.resolved
        .parameter_specs[IndexOf(subject_.module.Canonical(parameter))];
  }
  int Ranks() const {
    return std::min(subject_.mesh.size(), kMaxReportedRanks);
  }

  ExplainedTensor TensorOf(const Parameter& parameter) const {
    ExplainedTensor tensor{
        .fqn = parameter.fqn,
        .type = parameter.type,
        .spec = SpecOf(parameter),
        .alias_of = parameter.alias_of,
        .buffer = parameter.buffer,
        .requires_grad = parameter.requires_grad && !parameter.buffer,
        .parts = {}};
    for (int rank = 0; rank < Ranks(); ++rank) {
      ExplainedPart part{
          .rank = rank,
          .dims = LocalStretches(parameter.type.shape, tensor.spec,
                                 subject_.mesh, subject_.mesh.Coordinate(rank)),
          .bytes = ByteSize(parameter.type.dtype)};
      for (const Stretches& dim : part.dims) part.bytes *= SizeOf(dim);
      tensor.parts.push_back(std::move(part));
    }
    return tensor;
  }

  std::vector<int64_t> Bytes(absl::string_view fqn,
                             const Parameter* only) const {
    std::vector<int64_t> bytes(Ranks());
    for (const Parameter& parameter : subject_.module.parameters()) {
      const bool counts = only != nullptr ? &parameter == only
                                          : parameter.alias_of.empty() &&
                                                IsWithin(fqn, parameter.fqn);
      if (!counts) continue;
      const DTensorSpec& spec = SpecOf(parameter);
      for (int rank = 0; rank < Ranks(); ++rank) {
        bytes[rank] += ByteSize(
            TensorType{parameter.type.dtype,
                       LocalShape(parameter.type.shape, spec, subject_.mesh,
                                  subject_.mesh.Coordinate(rank))});
      }
    }
    return bytes;
  }

  // ------------------------------------------------------------ the plan

  std::vector<ExplainedMatch> Matches(int module) const {
    std::vector<ExplainedMatch> matches;
    std::string placed_by;  // the pattern whose style placed the parameters
    bool placed = false;
    PlanMatches found = MatchPlan(subject_.module, subject_.plan);
    ExpandPairs(subject_.module, &found);
    for (const PlanMatch& match : found.matches) {
      if (match.module != module) continue;
      const int mesh_dim = match.style->mesh_dim.empty()
                               ? subject_.resolved.mesh_dim
                               : subject_.mesh.FindDim(match.style->mesh_dim);
      ExplainedMatch explained{.pattern = std::string(match.pattern),
                               .style = ToString(*match.style),
                               .mesh_dim = subject_.mesh.dims()[mesh_dim].name};
      if (PlacesParameters(*match.style) && placed) {
        explained.outcome = MatchOutcome::kCountedOnce;
        explained.contributed = {absl::StrCat("nothing more: \"", placed_by,
                                              "\" has said the same")};
      } else {
        if (PlacesParameters(*match.style)) {
          placed = true;
          placed_by = std::string(match.pattern);
        }
        Contribute({match.module, subject_.module.modules()[module].fqn,
                    *match.style, mesh_dim, std::string(match.pattern)},
                   &explained);
      }
      matches.push_back(std::move(explained));
    }
    return matches;
  }

  void Contribute(const Assignment& assignment,
                  ExplainedMatch* explained) const {
    const AssignmentRow row =
        MakeAssignmentRow(subject_.module, subject_.resolved, assignment);
    for (const ParameterPlacement& placement : row.parameters) {
      const Parameter* parameter = subject_.module.FindParameter(
          JoinFqn(assignment.fqn, placement.name));
      if (parameter->buffer) continue;
      const DTensorSpec& wanted =
          subject_.resolved.wanted_specs[IndexOf(*parameter)];
      std::string text = absl::StrCat(placement.name, " ", ToString(wanted));
      if (wanted != placement.spec) {
        explained->outcome = MatchOutcome::kPartly;
        absl::StrAppend(&text, ", but it is one tensor with what another ",
                        "entry stores as ", ToString(placement.spec));
      }
      explained->contributed.push_back(std::move(text));
    }
    if (!row.input_layouts.empty()) {
      explained->contributed.push_back(
          absl::StrCat("input ", row.input_layouts));
    }
    if (!row.output_layouts.empty()) {
      explained->contributed.push_back(
          absl::StrCat("output ", row.output_layouts));
    }
  }

  // -------------------------------------------------------- the programs

  void AddCollectives(absl::string_view fqn, const Parameter* parameter,
                      Explanation* result) const {
    for (const ExplainedProgram& named : subject_.programs) {
      for (const CausedCollective& cause : CausesOfCollectives(
               subject_.module, subject_.resolved, *named.program)) {
        if (!Concerns(cause, fqn, parameter)) continue;
        const Value& value = named.program->values[cause.value];
        ExplainedCollective line{
            .program = named.name,
            .phase = cause.phase == Phase::kForward ? "forward" : "backward",
            .kind = ToString(cause.record.kind),
            .mesh_dim = subject_.mesh.dims()[cause.record.mesh_dim].name,
            .bytes = CountedBytes(cause.record),
            .why = cause.why,
            .modules = cause.modules,
            .tensor = ToString(value.type)};
        if (line.modules.size() > kMaxExplainedModules) {
          line.modules.resize(kMaxExplainedModules);
        }
        result->collectives.push_back(std::move(line));
      }
    }
  }

  bool Concerns(const CausedCollective& cause, absl::string_view fqn,
                const Parameter* parameter) const {
    if (parameter != nullptr) {
      const std::string& name = subject_.module.Canonical(*parameter).fqn;
      return std::find(cause.parameters.begin(), cause.parameters.end(),
                       name) != cause.parameters.end();
    }
    return fqn.empty() ||
           std::any_of(cause.modules.begin(), cause.modules.end(),
                       [&](const std::string& m) { return IsWithin(fqn, m); });
  }

  const ExplainSubject& subject_;
};

}  // namespace

absl::StatusOr<Explanation> Explain(const ExplainSubject& subject,
                                    absl::string_view fqn) {
  return Explainer(subject).Run(fqn);
}

}  // namespace shardplane
