// What a plan does to one module, parameter or buffer, and why.
#ifndef SHARDPLANE_COMMON_EXPLAIN_H_
#define SHARDPLANE_COMMON_EXPLAIN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"
#include "common/tensor_spec.h"

namespace shardplane {

enum class MatchOutcome {
  kApplied = 1,
  kCountedOnce,  // an earlier entry has said the same
  kPartly,       // a part of it is overridden: see `contributed`
};

// One entry of the plan that matched.
struct ExplainedMatch {
  std::string pattern;
  std::string style;  // "ColwiseParallel(R -> S(-1))"
  std::string mesh_dim;
  MatchOutcome outcome = MatchOutcome::kApplied;
  std::vector<std::string> contributed;  // "weight [S(0)]", "input R"
  friend bool operator==(const ExplainedMatch&,
                         const ExplainedMatch&) = default;
};

// What a rank has of a tensor: an extent a tensor dim.
struct ExplainedPart {
  int rank = 0;
  std::vector<Stretches> dims;  // of each tensor dim
  int64_t bytes = 0;
  friend bool operator==(const ExplainedPart&, const ExplainedPart&) = default;
};

struct ExplainedTensor {
  std::string fqn;
  TensorType type;
  DTensorSpec spec;
  std::string alias_of;
  bool buffer = false;
  bool requires_grad = false;
  std::vector<ExplainedPart> parts;  // of the first kMaxReportedRanks
};

// One that runs, on rank 0.
struct ExplainedCollective {
  std::string program;
  std::string phase;  // "forward", "backward"
  std::string kind;
  std::string mesh_dim;
  int64_t bytes = 0;
  std::string why;
  std::vector<std::string> modules;  // the first kMaxExplainedModules
  std::string tensor;                // "f32[8, 16]"
};
inline constexpr size_t kMaxExplainedModules = 16;

struct Explanation {
  enum class Kind { kModule = 1, kParameter, kBuffer };
  std::string fqn;
  Kind kind = Kind::kModule;
  std::string module_type;               // of a parameter, its module's
  std::vector<ExplainedMatch> matches;   // in the order of the plan
  std::vector<ExplainedTensor> tensors;  // the module's own, or the one
  // Parameters and buffers, children's included, by rank; a tied one counts
  // where its first name is.
  std::vector<int64_t> bytes;
  // Children's included. Of a parameter: those of its gradient, or that bring
  // it to where it is used.
  std::vector<ExplainedCollective> collectives;
  std::vector<Diagnostic> diagnostics;  // that name it
};

struct ExplainedProgram {
  std::string name;
  const ShardedProgram* program = nullptr;  // borrowed
};

// What is planned. All borrowed.
struct ExplainSubject {
  const GraphModule& module;
  const DeviceMesh& mesh;
  const std::optional<ParallelizePlan>& plan;  // as it was resolved
  const ResolvedPlan& resolved;
  absl::Span<const Diagnostic> diagnostics;  // of the plan and the programs
  absl::Span<const ExplainedProgram> programs;
};

// NotFound, with the closest name: no module, parameter or buffer of that FQN.
absl::StatusOr<Explanation> Explain(const ExplainSubject& subject,
                                    absl::string_view fqn);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_EXPLAIN_H_
