#include "common/report.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "common/collective_causes.h"
#include "common/program_text.h"
#include "common/report_memory.h"
#include "common/style_edges.h"

namespace shardplane {
namespace {

// A report travels in one message, with the rest of its resource.
constexpr size_t kMaxProgramText = size_t{1} << 20;

// "R" where nothing changes, else "S(0) -> R".
std::string ChangeText(const Placement& from, const Placement& to) {
  return from == to ? ToString(from)
                    : absl::StrCat(ToString(from), " -> ", ToString(to));
}

// Fills in a row's layouts as its style has them.
void WriteLayouts(const StyleEdges& edges, AssignmentRow* row) {
  row->input_layouts =
      edges.first_input
          ? ChangeText(*edges.first_input->claimed, *edges.first_input->desired)
          : ToString(edges.inputs);
  row->output_layouts =
      edges.made
          ? ChangeText(*edges.made, *edges.outputs.outputs.front().desired)
          : ToString(edges.outputs);
}

// How a parameter is stored: as the first of its names.
const DTensorSpec& StoredSpec(const GraphModule& module,
                              const ResolvedPlan& plan,
                              const Parameter& parameter) {
  const Parameter& canonical = module.Canonical(parameter);
  return plan.parameter_specs[&canonical - module.parameters().data()];
}

// One parameter, from the rank that has it whole: rank 0's part gets smaller
// with every dim that cuts.
void TallyMaterialize(const TensorType& type, const DTensorSpec& spec,
                      const DeviceMesh& mesh, int plan_dim,
                      CollectiveTally* tally) {
  Shape shape = type.shape;
  for (const int mesh_dim : TravelOrder(spec, plan_dim)) {
    const int ranks = mesh.dim_size(mesh_dim);
    if (ranks == 1) continue;
    const int tensor_dim = ShardDim(spec.placements[mesh_dim]);
    if (tensor_dim == -1) {
      tally->Add("broadcast", ByteSize(TensorType{type.dtype, shape}));
      continue;
    }
    const int64_t chunk = SizeOf(PartOf(
        shape[tensor_dim], BlocksOf(spec.placements[mesh_dim]), ranks, 0));
    shape[tensor_dim] = chunk * ranks;
    tally->Add("scatter", ByteSize(TensorType{type.dtype, shape}));
    shape[tensor_dim] = chunk;
  }
}

void AddCollectives(const CompiledProgram& compiled, Report* report) {
  const ShardedProgram& program = compiled.program;
  const std::vector<int> first = program.mesh.Coordinate(0);
  const std::pair<Phase, const char*> phases[] = {
      {Phase::kForward, "forward"}, {Phase::kBackward, "backward"}};
  for (const auto& [phase, name] : phases) {
    for (CollectiveCount& count :
         CountCollectives(name, Collectives(program, phase, first))) {
      report->collectives.push_back(std::move(count));
    }
  }
}

// Equal ones together, at the place of the first.
std::vector<ModuleCollective> ByModule(
    const std::vector<CausedCollective>& caused, const DeviceMesh& mesh) {
  std::vector<ModuleCollective> rows;
  absl::flat_hash_map<std::string, size_t> places;
  for (const CausedCollective& cause : caused) {
    ModuleCollective row{
        .fqn = cause.fqn,
        .phase = cause.phase == Phase::kForward ? "forward" : "backward",
        .kind = ToString(cause.record.kind),
        .mesh_dim = mesh.dims()[cause.record.mesh_dim].name,
        .why = cause.why};
    const std::string key = absl::StrJoin(
        {row.fqn, row.phase, row.kind, row.mesh_dim, row.why}, "\n");
    const auto [place, is_new] = places.try_emplace(key, rows.size());
    if (is_new) rows.push_back(std::move(row));
    ++rows[place->second].count;
    rows[place->second].bytes += CountedBytes(cause.record);
  }
  return rows;
}

void AddFlops(const CompiledProgram& compiled, const DeviceMesh& mesh,
              Report* report) {
  const int ranks = std::min(mesh.size(), kMaxReportedRanks);
  for (int rank = 0; rank < ranks; ++rank) {
    Flops flops = compiled.flops.On(mesh, mesh.Coordinate(rank));
    if (compiled.program.loss < 0) flops.backward = 0;
    report->flops.push_back({rank, flops});
  }
  // The first rank has most of whatever is cut.
  const Flops& most = report->flops[0].flops;
  report->flops_per_rank = most.forward + most.backward;
}

}  // namespace

AssignmentRow MakeAssignmentRow(const GraphModule& module,
                                const ResolvedPlan& plan,
                                const Assignment& assignment) {
  const ModuleNode& node = module.modules()[assignment.module];
  AssignmentRow row{.fqn = assignment.fqn,
                    .module_type = node.type,
                    .style = StyleName(assignment.style),
                    .pattern = assignment.pattern};
  WriteLayouts(EdgesOf(assignment.style, node), &row);
  if (!PlacesParameters(assignment.style)) return row;
  for (const int index : module.ParametersOf(assignment.module)) {
    const Parameter& parameter = module.parameters()[index];
    row.parameters.push_back({SplitFqn(parameter.fqn).second, parameter.type,
                              StoredSpec(module, plan, parameter)});
  }
  return row;
}

std::vector<CollectiveCount> MaterializeCollectives(
    const GraphModule& module, const DeviceMesh& mesh, const ResolvedPlan& plan,
    std::optional<int> src_data_rank) {
  if (!src_data_rank.has_value()) return {};
  CollectiveTally tally;
  for (size_t i = 0; i < module.parameters().size(); ++i) {
    const Parameter& parameter = module.parameters()[i];
    if (!parameter.alias_of.empty() || parameter.initializer.has_value()) {
      continue;
    }
    TallyMaterialize(parameter.type, plan.parameter_specs[i], mesh,
                     plan.mesh_dim, &tally);
  }
  return std::move(tally).Take("materialize");
}

Report BuildReport(const GraphModule& module, const DeviceMesh& mesh,
                   const ResolvedPlan& plan, std::optional<int> src_data_rank,
                   const CompiledProgram* program) {
  Report report;
  report.assignments.reserve(plan.assignments.size());
  report.parameters.reserve(module.parameters().size());
  for (const Assignment& assignment : plan.assignments) {
    report.assignments.push_back(MakeAssignmentRow(module, plan, assignment));
  }
  for (const Parameter& parameter : module.parameters()) {
    report.parameters.push_back(
        {parameter.fqn, parameter.type, StoredSpec(module, plan, parameter)});
  }
  report.diagnostics = plan.diagnostics;
  report.collectives =
      MaterializeCollectives(module, mesh, plan, src_data_rank);
  report.memory = EstimateMemory(
      module, mesh, plan, program == nullptr ? nullptr : &program->program);
  if (program == nullptr) return report;
  report.diagnostics.insert(report.diagnostics.end(),
                            program->diagnostics.begin(),
                            program->diagnostics.end());
  AddCollectives(*program, &report);
  report.module_collectives =
      ByModule(CausesOfCollectives(module, plan, program->program), mesh);
  AddFlops(*program, mesh, &report);
  report.program_text = ProgramText(program->program, kMaxProgramText);
  return report;
}

}  // namespace shardplane
