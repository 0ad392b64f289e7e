// The second half of resolving a plan: from matches to assignments and to the
// placements of parameters.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/factor_cuts.h"
#include "common/pairing.h"
#include "common/parallelize_plan.h"
#include "common/plan_matching.h"
#include "common/style_cuts.h"
#include "common/style_edges.h"

namespace shardplane {
namespace {

// What a style says of a dim of `extent` elements that it cuts.
absl::StatusOr<Blocks> BlocksAsked(const ParallelStyle& style, int64_t extent) {
  std::vector<int64_t> sizes;
  if (const auto* colwise = std::get_if<ColwiseParallel>(&style.kind)) {
    sizes = colwise->block_sizes;
  } else if (const auto* rowwise = std::get_if<RowwiseParallel>(&style.kind)) {
    sizes = rowwise->block_sizes;
  }
  std::vector<Block> list;
  int64_t sum = 0;
  for (const int64_t size : sizes) {
    list.push_back({.size = size});
    sum += size;
  }
  if (list.empty() || sum == extent) return Blocks::Of(std::move(list));
  return absl::InvalidArgumentError(absl::StrCat(
      "has blocks of ", extent,
      " elements together; got: ", absl::StrJoin(sizes, "+"), " = ", sum));
}

// What is wrong with a plan; each is found before anything is applied.
struct Fault {
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  std::string message;
  ErrorInfo info;
};

// The first fault as a status that knows of the others.
absl::Status ToStatus(const std::vector<Fault>& faults) {
  Fault first = faults.front();
  if (faults.size() > 1) {
    const size_t more = faults.size() - 1;
    absl::StrAppend(&first.message, " (and ", more, " more ",
                    more == 1 ? "fault" : "faults", " in the plan)");
  }
  const auto message = [](std::string* out, const Fault& fault) {
    absl::StrAppend(out, fault.message);
  };
  first.info.metadata["errors"] = absl::StrJoin(faults, "\n", message);
  return MakeError(first.code, first.message, first.info);
}

// The only mesh dim that is not data parallel; the first one where all are; -1:
// there are several.
int OnlyDim(const DataParallelDims& data_parallel) {
  const auto rest =
      std::count(data_parallel.begin(), data_parallel.end(), std::nullopt);
  if (rest == 0) return 0;
  if (rest > 1) return -1;
  return static_cast<int>(
      std::find(data_parallel.begin(), data_parallel.end(), std::nullopt) -
      data_parallel.begin());
}

// The mesh dim that a plan works on where its styles name none.
absl::StatusOr<int> PlanMeshDim(const DeviceMesh& mesh, const std::string& name,
                                const DataParallelDims& data_parallel) {
  int mesh_dim = mesh.FindDim(name.empty() ? "tp" : name);
  if (name.empty() && (mesh_dim == -1 || data_parallel[mesh_dim].has_value())) {
    mesh_dim = OnlyDim(data_parallel);
  }
  if (mesh_dim != -1) return mesh_dim;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      name.empty()
          ? absl::StrCat("a mesh of several dims without one named \"tp\" "
                         "needs the name of the plan's; got: mesh ",
                         mesh.ToString())
          : absl::StrCat("the plan's mesh dim must be one of ", mesh.ToString(),
                         "; got: \"", name, "\""),
      {.reason = "UNKNOWN_MESH_DIM",
       .metadata = {{"mesh_dim", name}, {"mesh", mesh.ToString()}}});
}

class Resolver {
 public:
  Resolver(const GraphModule& module, const DeviceMesh& mesh, int plan_dim,
           DataParallelDims data_parallel, ShardDims shard_dims)
      : module_(module),
        mesh_(mesh),
        shard_dims_(std::move(shard_dims)),
        wanted_(module.parameters().size()),
        wanted_by_(module.parameters().size()) {
    plan_.mesh_dim = plan_dim;
    plan_.data_parallel = std::move(data_parallel);
  }

  void Apply(const PlanMatch& match) {
    const std::optional<int> mesh_dim = MeshDimOf(match);
    if (!mesh_dim.has_value()) return;
    if (std::holds_alternative<UnknownStyle>(match.style->kind)) {
      AddUnknownStyle(match);
      return;
    }
    if (PlacesParameters(*match.style) && !PlaceOnce(match, *mesh_dim)) {
      return;
    }
    plan_.assignments.push_back({match.module, Fqn(match.module), *match.style,
                                 *mesh_dim, std::string(match.pattern)});
  }

  const std::vector<Fault>& faults() const { return faults_; }

  ResolvedPlan Finish(std::vector<Diagnostic> diagnostics) && {
    plan_.diagnostics = std::move(diagnostics);
    PlaceParameters();
    return std::move(plan_);
  }

 private:
  struct Styled {
    const ParallelStyle* style;
    int mesh_dim = 0;
    absl::string_view pattern;
  };

  const std::string& Fqn(int module) const {
    return module_.modules()[module].fqn;
  }

  void AddFault(absl::StatusCode code, const std::string& reason,
                const PlanMatch& match, std::string message) {
    faults_.push_back({code,
                       std::move(message),
                       {.reason = reason,
                        .metadata = {{"fqn", Fqn(match.module)},
                                     {"pattern", std::string(match.pattern)},
                                     {"style", StyleName(*match.style)}}}});
  }

  std::optional<int> MeshDimOf(const PlanMatch& match) {
    const std::string& name = match.style->mesh_dim;
    const int mesh_dim = name.empty() ? plan_.mesh_dim : mesh_.FindDim(name);
    if (mesh_dim != -1 && plan_.data_parallel[mesh_dim].has_value()) {
      AddFault(absl::StatusCode::kInvalidArgument, "DATA_PARALLEL_MESH_DIM",
               match,
               absl::StrCat(StyleName(*match.style), " on module \"",
                            Fqn(match.module), "\" (pattern '", match.pattern,
                            "') needs a mesh dim that is not data parallel; "
                            "got: \"",
                            mesh_.dims()[mesh_dim].name, "\" of mesh ",
                            mesh_.ToString()));
      return std::nullopt;
    }
    if (mesh_dim != -1) return mesh_dim;
    AddFault(absl::StatusCode::kInvalidArgument, "UNKNOWN_MESH_DIM", match,
             absl::StrCat(StyleName(*match.style), " on module \"",
                          Fqn(match.module), "\" (pattern '", match.pattern,
                          "') must name a dim of mesh ", mesh_.ToString(),
                          "; got: \"", name, "\""));
    return std::nullopt;
  }

  void AddUnknownStyle(const PlanMatch& match) {
    AddFault(absl::StatusCode::kUnimplemented, "STYLE_UNKNOWN", match,
             absl::StrCat("the style for module \"", Fqn(match.module),
                          "\" (pattern '", match.pattern,
                          "') must be one of ColwiseParallel, "
                          "RowwiseParallel, SequenceParallel, "
                          "PrepareModuleInput, "
                          "PrepareModuleOutput, PrepareModuleInputOutput, "
                          "InputReshard, PairwiseParallel, "
                          "PairwiseSequenceParallel, LossParallel; "
                          "got: ",
                          StyleName(*match.style)));
  }

  // Whether the match is a new parameter style, and a valid one.
  bool PlaceOnce(const PlanMatch& match, int mesh_dim) {
    const auto earlier = styled_.find(match.module);
    if (earlier != styled_.end()) {
      const Styled& first = earlier->second;
      if (first.style->kind != match.style->kind ||
          first.mesh_dim != mesh_dim) {
        AddConflict(first, match);
      }
      return false;
    }
    styled_[match.module] = {match.style, mesh_dim, match.pattern};
    if (std::holds_alternative<SequenceParallel>(match.style->kind)) {
      return PlaceParametersOf(match, "", mesh_dim);
    }
    if (IsPairwise(*match.style)) return PlaceAttention(match, mesh_dim);
    const std::string style = StyleName(*match.style);
    const absl::string_view type =
        CutType(style, module_.modules()[match.module]);
    if (type.empty() || !OwnsWeight(match.module)) {
      AddUnsupportedModule(match, type);
      return false;
    }
    return PlaceParametersOf(match, type, mesh_dim);
  }

  void AddConflict(const Styled& first, const PlanMatch& match) {
    AddFault(absl::StatusCode::kInvalidArgument, "STYLE_CONFLICT", match,
             absl::StrCat("module \"", Fqn(match.module),
                          "\" can have one style for its parameters and has ",
                          ToString(*first.style), " by pattern '",
                          first.pattern, "'; got: ", ToString(*match.style),
                          " by pattern '", match.pattern, "'"));
    faults_.back().info.metadata["first_pattern"] = std::string(first.pattern);
  }

  // What is not expanded into pairs is an attention, or a fault.
  bool PlaceAttention(const PlanMatch& match, int mesh_dim) {
    if (IsA(module_.modules()[match.module], kAttention)) {
      return PlaceParametersOf(match, kAttention, mesh_dim);
    }
    AddNothingToPair(match);
    return false;
  }

  static bool IsPairwise(const ParallelStyle& style) {
    return std::holds_alternative<PairwiseParallel>(style.kind) ||
           std::holds_alternative<PairwiseSequenceParallel>(style.kind);
  }

  void AddNothingToPair(const PlanMatch& match) {
    const std::string& type = module_.modules()[match.module].type;
    AddFault(
        absl::StatusCode::kInvalidArgument, "STYLE_UNSUPPORTED_MODULE", match,
        absl::StrCat(StyleName(*match.style), " on module \"",
                     Fqn(match.module), "\" (pattern '", match.pattern,
                     "') takes a module around what it pairs: more than one "
                     "nn.Linear needed for a MLP, or an nn.MultiheadAttention; "
                     "got: ",
                     type));
    faults_.back().info.metadata["type"] = type;
  }

  bool OwnsWeight(int module) const {
    return module_.FindParameter(JoinFqn(Fqn(module), "weight")) != nullptr;
  }

  void AddUnsupportedModule(const PlanMatch& match, absl::string_view type) {
    AddFault(absl::StatusCode::kUnimplemented, "STYLE_UNSUPPORTED_MODULE",
             match,
             absl::StrCat(
                 StyleName(*match.style), " on module \"", Fqn(match.module),
                 "\" (pattern '", match.pattern,
                 "') takes a Linear, an Embedding or a Conv1D of transformers",
                 type.empty() ? "" : " with a parameter \"weight\"",
                 "; got: ", module_.modules()[match.module].type));
    faults_.back().info.metadata["type"] = module_.modules()[match.module].type;
  }

  // Of the module itself; those of its children are their own styles'.
  bool PlaceParametersOf(const PlanMatch& match, absl::string_view type,
                         int mesh_dim) {
    for (const int index : module_.ParametersOf(match.module)) {
      const Parameter& parameter = module_.parameters()[index];
      if (parameter.buffer) continue;
      wanted_[index] = DTensorSpec::Replicated(mesh_.ndim());
      wanted_by_[index] = std::string(match.pattern);
      styled_order_.push_back(index);
      const CutRow* row = FindCut(StyleName(*match.style), type, parameter);
      if (row == nullptr) continue;
      if (static_cast<int>(parameter.type.shape.size()) !=
          row->parameter_rank) {
        AddFault(absl::StatusCode::kInvalidArgument, "PARAMETER_UNSUPPORTED",
                 match,
                 absl::StrCat(StyleName(*match.style), " on parameter \"",
                              parameter.fqn, "\" (pattern '", match.pattern,
                              "') takes a tensor of ", row->parameter_rank,
                              " dims; got: ", ToString(parameter.type)));
        return false;
      }
      const absl::StatusOr<Blocks> blocks =
          BlocksAsked(*match.style, parameter.type.shape[row->tensor_dim]);
      if (!blocks.ok()) {
        AddFault(absl::StatusCode::kInvalidArgument, "BLOCK_SIZES", match,
                 absl::StrCat(ToString(*match.style), " on parameter \"",
                              parameter.fqn, "\" (pattern '", match.pattern,
                              "') ", blocks.status().message()));
        return false;
      }
      wanted_[index]->placements[mesh_dim] =
          Shard{row->tensor_dim,
                CanonicalBlocks(blocks->list(), mesh_.dim_size(mesh_dim))};
    }
    return true;
  }

  // Index of the parameter that `index` is another name of; often itself.
  int CanonicalIndex(int index) const {
    const Parameter& parameter = module_.parameters()[index];
    return static_cast<int>(&module_.Canonical(parameter) -
                            module_.parameters().data());
  }

  // One tensor has one placement: the first that the plan gives to any of its
  // names. A name that is wanted otherwise keeps its wish, to be redistributed
  // to where it is used.
  void PlaceParameters() {
    const int count = static_cast<int>(module_.parameters().size());
    std::vector<std::optional<int>> first(count);  // by canonical index
    for (const int index : styled_order_) {
      std::optional<int>& holder = first[CanonicalIndex(index)];
      if (!holder.has_value()) {
        holder = index;
      } else if (wanted_[*holder] != wanted_[index]) {
        NoteTiedPlacement(*holder, index);
      }
    }
    plan_.parameter_specs.reserve(count);
    plan_.wanted_specs.reserve(count);
    for (int index = 0; index < count; ++index) {
      const std::optional<int> holder = first[CanonicalIndex(index)];
      const DTensorSpec placed = holder.has_value()
                                     ? *wanted_[*holder]
                                     : DTensorSpec::Replicated(mesh_.ndim());
      const Parameter& parameter = module_.parameters()[index];
      plan_.parameter_specs.push_back(
          parameter.buffer
              ? placed
              : FullySharded(placed, parameter.type, plan_.data_parallel,
                             shard_dims_.empty() ? absl::Span<const int>()
                                                 : shard_dims_[index]));
      plan_.wanted_specs.push_back(wanted_[index].value_or(placed));
    }
  }

  void NoteTiedPlacement(int holder, int other) {
    const std::string& first = module_.parameters()[holder].fqn;
    const std::string& second = module_.parameters()[other].fqn;
    plan_.diagnostics.push_back(
        {Severity::kNote, "TIED_PLACEMENT",
         absl::StrCat("\"", first, "\" and \"", second,
                      "\" are one tensor; it is stored as ",
                      ToString(*wanted_[holder]), " (pattern '",
                      wanted_by_[holder], "') and redistributed to ",
                      ToString(*wanted_[other]), " (pattern '",
                      wanted_by_[other], "') where that is used."),
         SplitFqn(second).first, wanted_by_[other]});
  }

  const GraphModule& module_;
  const DeviceMesh& mesh_;
  const ShardDims shard_dims_;
  ResolvedPlan plan_;
  std::vector<Fault> faults_;
  absl::flat_hash_map<int, Styled> styled_;  // parameter styles by module
  // What the plan wants of each parameter, by index, and the pattern that does.
  std::vector<std::optional<DTensorSpec>> wanted_;
  std::vector<std::string> wanted_by_;
  std::vector<int> styled_order_;  // indices in the order of the plan
};

absl::Status StrictStatus(const std::vector<PlanWarning>& warnings) {
  std::vector<Fault> faults;
  for (const PlanWarning& warning : warnings) {
    const Diagnostic& diagnostic = warning.diagnostic;
    Fault fault{.message = diagnostic.message,
                .info = {.reason = diagnostic.reason,
                         .metadata = {{"fqn", diagnostic.fqn},
                                      {"pattern", diagnostic.pattern}}}};
    if (!warning.suggestion.empty()) {
      fault.info.metadata["suggestion"] = warning.suggestion;
    }
    faults.push_back(std::move(fault));
  }
  return ToStatus(faults);
}

}  // namespace

absl::StatusOr<ResolvedPlan> ResolvePlan(
    const GraphModule& module, const DeviceMesh& mesh,
    const std::optional<ParallelizePlan>& plan, const PlanOptions& options) {
  SP_ASSIGN_OR_RETURN(DataParallelDims data_parallel,
                      ResolveDataParallel(mesh, options.data_parallel));
  SP_ASSIGN_OR_RETURN(ShardDims shard_dims,
                      ResolveShardDims(module, mesh, options.data_parallel));
  SP_ASSIGN_OR_RETURN(const int plan_dim,
                      PlanMeshDim(mesh, options.mesh_dim, data_parallel));
  PlanMatches matches = MatchPlan(module, plan);
  ExpandPairs(module, &matches);
  Resolver resolver(module, mesh, plan_dim, std::move(data_parallel),
                    std::move(shard_dims));
  for (const PlanMatch& match : matches.matches) resolver.Apply(match);
  if (!resolver.faults().empty()) return ToStatus(resolver.faults());
  if (options.strict && !matches.warnings.empty()) {
    return StrictStatus(matches.warnings);
  }
  std::vector<Diagnostic> diagnostics;
  for (const PlanWarning& warning : matches.warnings) {
    diagnostics.push_back(warning.diagnostic);
  }
  diagnostics.insert(diagnostics.end(), matches.notes.begin(),
                     matches.notes.end());
  return std::move(resolver).Finish(std::move(diagnostics));
}

}  // namespace shardplane
