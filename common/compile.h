// From a module, a mesh and a resolved plan to a sharded program.
#ifndef SHARDPLANE_COMMON_COMPILE_H_
#define SHARDPLANE_COMMON_COMPILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device_mesh.h"
#include "common/flops.h"
#include "common/graph_module.h"
#include "common/link_costs.h"
#include "common/overlap.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"
#include "common/tensor_type.h"
#include "common/units.h"

namespace shardplane {

struct InputSpec {
  TensorType type;
  bool requires_grad = false;
  std::string name;  // of forward's parameter
  friend bool operator==(const InputSpec&, const InputSpec&) = default;
};

enum class LossReduction { kSum = 1, kMean };

// One signature: what is called how.
struct Signature {
  std::vector<InputSpec> inputs;
  // nullopt: forward only. A graph's placeholders are the module's outputs,
  // then the targets; its output is one 0-dim tensor.
  std::optional<std::variant<LossReduction, Graph>> loss;
  std::vector<InputSpec> targets;
  friend bool operator==(const Signature&, const Signature&) = default;
};

struct CompileOptions {
  bool strict = false;  // an op without a row is Unimplemented, not a warning
  OverlapOptions overlap;
  int64_t unit_bytes = kDefaultUnitBytes;  // see UnitsOf
  LinkCosts link_costs = kDefaultLinkCosts;
  // Modules whose activations are made anew for the backward pass, by the
  // patterns of a plan; those within them are so, too.
  std::vector<std::string> recompute = {};
  bool fused_operators = false;  // see common/fused_operators.h
};

// A cut of the plan, packed as a program would have it (common/packing.h).
struct Packing {
  int parameter = 0;  // index in GraphModule::parameters()
  int mesh_dim = 0;
  int tensor_dim = 0;
  Blocks blocks;
  friend bool operator==(const Packing&, const Packing&) = default;
};

struct CompiledProgram {
  ShardedProgram program;
  std::vector<Diagnostic> diagnostics;
  // Backward's are counted also where there is no loss.
  FlopCount flops;
  // Calls of operators that no earlier one was like: however often a block is
  // repeated, its calls count once.
  size_t distinct_calls = 0;
  // Where something had to move that other cuts of parameters might spare: such
  // cuts, each a way by itself.
  std::vector<std::vector<Packing>> packings = {};
};

// `module` carries the graphs of this signature; `plan` was resolved against a
// module with the same tree and parameters.
// InvalidArgument: inputs that do not fit the graph, shapes that do not fit an
// op (names FQN and op), a loss that is not 0-dim. Unimplemented: an op that
// has no row and is not on the safe list (names op and FQN).
absl::StatusOr<CompiledProgram> Compile(const GraphModule& module,
                                        const DeviceMesh& mesh,
                                        const ResolvedPlan& plan,
                                        const Signature& signature,
                                        const CompileOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_COMPILE_H_
