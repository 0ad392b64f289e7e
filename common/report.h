// What planning found out, for people and for machines: who is cut how, what a
// step communicates, what each rank holds.
#ifndef SHARDPLANE_COMMON_REPORT_H_
#define SHARDPLANE_COMMON_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/compile.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"

namespace shardplane {

// Collectives of one kind in one phase ("materialize", "forward", "backward",
// "optimizer"), on rank 0. Kinds: "all_gather", "all_reduce",
// "reduce_scatter", "all_to_all", "scatter", "broadcast".
struct CollectiveCount {
  std::string phase;
  std::string kind;
  int64_t count = 0;
  int64_t bytes = 0;  // larger buffer, padding included, summed
  friend bool operator==(const CollectiveCount&,
                         const CollectiveCount&) = default;
};

// Memory of more ranks than this is not reported.
inline constexpr int kMaxReportedRanks = 1024;

struct RankMemory {
  int rank = 0;
  int64_t parameter_bytes = 0;
  int64_t gradient_bytes = 0;
  int64_t buffer_bytes = 0;
  int64_t peak_activation_bytes = 0;
  friend bool operator==(const RankMemory&, const RankMemory&) = default;
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
  int64_t flops_per_rank = 0;
  std::vector<ParameterPlacement> parameters;
  std::string program_text;
};

// `program` is nullptr where there is none yet. `src_data_rank` nullopt: each
// rank cuts its own data, so materializing communicates nothing.
Report BuildReport(const GraphModule& module, const DeviceMesh& mesh,
                   const ResolvedPlan& plan, std::optional<int> src_data_rank,
                   const CompiledProgram* program);

// Counts by kind of what a rank ran in one phase, kinds in a fixed order.
std::vector<CollectiveCount> CountCollectives(
    const std::string& phase, absl::Span<const CollectiveRecord> records);

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
