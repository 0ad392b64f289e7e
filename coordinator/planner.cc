#include "coordinator/planner.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/packing.h"

namespace shardplane {
namespace {

absl::Status CheckSrcDataRank(const DeploymentSpec& spec,
                              const ResolvedPlan& plan) {
  const int size = spec.mesh.dim_size(plan.mesh_dim);
  const int rank = spec.src_data_rank.value_or(0);
  if (rank >= 0 && rank < size) {
    return absl::OkStatus();
  }
  const std::string expected = absl::StrCat("0 to ", size - 1);
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("src_data_rank: expected ", expected, " (mesh dim \"",
                   spec.mesh.dims()[plan.mesh_dim].name, "\" has size ", size,
                   "), got: ", rank),
      {.reason = "SRC_DATA_RANK_OUT_OF_RANGE",
       .metadata = {{"field", "deployment.src_data_rank"},
                    {"expected", expected}}});
}

absl::Status OtherModule(absl::string_view what, absl::string_view expected,
                         absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("signature.module: expected the tree of the deployment's "
                   "module with ",
                   what, " ", expected, ", got: ", got),
      {.reason = "MODULE_DIFFERS",
       .metadata = {{"field", "signature.module"},
                    {"fqn", std::string(expected)},
                    {"expected", std::string(expected)}}});
}

std::string Describe(const Parameter& parameter) {
  return absl::StrCat(
      "\"", parameter.fqn, "\" ", ToString(parameter.type),
      parameter.alias_of.empty()
          ? ""
          : absl::StrCat(" (alias of \"", parameter.alias_of, "\")"));
}
std::string Describe(const ModuleNode& module) {
  return absl::StrCat("\"", module.fqn, "\"");
}

template <typename T>
absl::Status CheckSameList(absl::string_view what, const std::vector<T>& want,
                           const std::vector<T>& have) {
  for (size_t i = 0; i < std::max(want.size(), have.size()); ++i) {
    const std::string expected =
        i < want.size() ? Describe(want[i]) : "no further one";
    const std::string got = i < have.size() ? Describe(have[i]) : "none";
    if (expected != got) {
      return OtherModule(what, expected, got);
    }
  }
  return absl::OkStatus();
}

// The plan's specs and assignments go by index: tree and parameters must be
// the same, graphs and modes may differ.
absl::Status CheckSameTree(const GraphModule& want, const GraphModule& have) {
  SP_RETURN_IF_ERROR(CheckSameList("module", want.modules(), have.modules()));
  return CheckSameList("parameter", want.parameters(), have.parameters());
}

}  // namespace

namespace {

using Compiled = absl::StatusOr<CompiledProgram>;

CompileOptions OptionsOf(const DeploymentSpec& spec) {
  return {.strict = spec.strict,
          .overlap = spec.overlap,
          .unit_bytes = spec.unit_bytes,
          .link_costs = spec.link_costs.value_or(kDefaultLinkCosts),
          .recompute = spec.recompute,
          .fused_operators = spec.fused_operators};
}

// `compile(module)` of the signature; `plan` is what it compiled for.
absl::StatusOr<PlannedProgram> PlanWith(
    const DeploymentSpec& spec, const ResolvedPlan& plan,
    const SignatureSpec& signature,
    absl::FunctionRef<Compiled(const GraphModule&)> compile) {
  if (signature.module.has_value()) {
    SP_RETURN_IF_ERROR(CheckSameTree(spec.module, *signature.module));
  }
  const GraphModule& module =
      signature.module.has_value() ? *signature.module : spec.module;
  Compiled compiled = compile(module);
  if (!compiled.ok()) {
    return WithMetadata(compiled.status(), "field", "signature");
  }
  PlannedProgram planned{*std::move(compiled), {}};
  planned.report = BuildReport(module, spec.mesh, plan, spec.src_data_rank,
                               &planned.compiled);
  return planned;
}

}  // namespace

absl::StatusOr<PlannedProgram> PlanProgram(const DeploymentSpec& spec,
                                           const ResolvedPlan& plan,
                                           const SignatureSpec& signature) {
  return PlanWith(spec, plan, signature, [&](const GraphModule& module) {
    return Compile(module, spec.mesh, plan, signature.signature,
                   OptionsOf(spec));
  });
}

absl::StatusOr<PlannedDeployment> PlanDeployment(
    const DeploymentSpec& spec, const std::optional<SignatureSpec>& signature) {
  if (spec.unit_bytes < 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("unit_bytes: expected 0 or more, got: ", spec.unit_bytes),
        {.reason = "UNIT_BYTES",
         .metadata = {{"field", "deployment.unit_bytes"}}});
  }
  absl::StatusOr<ResolvedPlan> plan =
      ResolvePlan(spec.module, spec.mesh, spec.plan,
                  {.mesh_dim = spec.plan_mesh_dim,
                   .data_parallel = spec.data_parallel,
                   .strict = spec.strict});
  if (!plan.ok()) {
    return WithMetadata(plan.status(), "field", "deployment.plan");
  }
  SP_RETURN_IF_ERROR(CheckSrcDataRank(spec, *plan));
  PlannedDeployment planned{*std::move(plan), std::nullopt, {}};
  if (signature.has_value()) {
    const auto compile = [&](const GraphModule& module) {
      return CompileAndPack(module, spec.mesh, signature->signature,
                            OptionsOf(spec), &planned.plan);
    };
    SP_ASSIGN_OR_RETURN(planned.program,
                        PlanWith(spec, planned.plan, *signature, compile));
  }
  planned.report = planned.program.has_value()
                       ? planned.program->report
                       : BuildReport(spec.module, spec.mesh, planned.plan,
                                     spec.src_data_rank, nullptr);
  return planned;
}

}  // namespace shardplane
