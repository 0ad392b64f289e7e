// What planning found out, for people and for machines: who is cut how, what a
// step communicates, what each rank holds.
#ifndef SHARDPLANE_COMMON_REPORT_H_
#define SHARDPLANE_COMMON_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/collective_count.h"
#include "common/compile.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"

namespace shardplane {

// Memory of more ranks than this is not reported.
inline constexpr int kMaxReportedRanks = 1024;

// What an optimizer would keep beside parameters.
struct OptimizerStateBytes {
  std::string optimizer;  // "Adam, amsgrad"
  int64_t bytes = 0;
  friend bool operator==(const OptimizerStateBytes&,
                         const OptimizerStateBytes&) = default;
};

struct RankMemory {
  int rank = 0;
  int64_t parameter_bytes = 0;
  int64_t gradient_bytes = 0;
  int64_t buffer_bytes = 0;
  // See RunPeak in common/run_memory.h. 0 where there is no program.
  int64_t peak_activation_bytes = 0;
  int64_t peak_run_bytes = 0;
  // In the order of kOptimizerStates.
  std::vector<OptimizerStateBytes> optimizer_state;
  friend bool operator==(const RankMemory&, const RankMemory&) = default;
};

struct RankFlops {
  int rank = 0;
  Flops flops;
  friend bool operator==(const RankFlops&, const RankFlops&) = default;
};

// Collectives of one kind that a module causes in one phase for one reason, on
// rank 0.
struct ModuleCollective {
  std::string fqn;  // of several modules, the nearest that holds them all
  std::string phase;
  std::string kind;
  std::string mesh_dim;
  int64_t count = 0;
  int64_t bytes = 0;
  std::string why;
  friend bool operator==(const ModuleCollective&,
                         const ModuleCollective&) = default;
};

struct ParameterPlacement {
  std::string name;  // in an assignment the bare name, else the FQN
  TensorType type;
  DTensorSpec spec;
  friend bool operator==(const ParameterPlacement&,
                         const ParameterPlacement&) = default;
};

struct AssignmentRow {
  std::string fqn;
  std::string module_type;
  std::string style;
  std::string pattern;
  std::vector<ParameterPlacement> parameters;
  std::string input_layouts;  // "R", "S(0) -> R"
  std::string output_layouts;
  friend bool operator==(const AssignmentRow&, const AssignmentRow&) = default;
};

struct Report {
  std::vector<AssignmentRow> assignments;
  std::vector<Diagnostic> diagnostics;
  std::vector<CollectiveCount> collectives;
  std::vector<RankMemory> memory;
  int64_t flops_per_rank = 0;  // both passes, of the rank that has most
  std::vector<ParameterPlacement> parameters;
  std::string program_text;
  std::vector<ModuleCollective> module_collectives;  // in program order
  std::vector<RankFlops> flops;  // by rank; none without a program
};

// What one assignment of the plan does; parameters as they are stored.
AssignmentRow MakeAssignmentRow(const GraphModule& module,
                                const ResolvedPlan& plan,
                                const Assignment& assignment);

// `program` is nullptr where there is none yet. `src_data_rank` nullopt: each
// rank cuts its own data, so materializing communicates nothing.
Report BuildReport(const GraphModule& module, const DeviceMesh& mesh,
                   const ResolvedPlan& plan, std::optional<int> src_data_rank,
                   const CompiledProgram* program);

// The collectives of materializing, by kind: for each canonical parameter and
// buffer that is not initialised in place, and each mesh dim in turn (the
// plan's first), a scatter where the dim cuts it, else a broadcast; none on a
// mesh dim of size 1. Sizes: a scatter counts what its source has, padded, a
// broadcast what it sends; later dims send what earlier ones left of the
// tensor.
std::vector<CollectiveCount> MaterializeCollectives(
    const GraphModule& module, const DeviceMesh& mesh, const ResolvedPlan& plan,
    std::optional<int> src_data_rank);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_REPORT_H_
