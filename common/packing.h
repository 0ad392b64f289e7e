// How the parameters that a plan cuts are packed, found from what a program
// makes of them: a fused projection is taken apart into q, k and v, a head must
// stay whole, and there may be fewer key heads than ranks.
#ifndef SHARDPLANE_COMMON_PACKING_H_
#define SHARDPLANE_COMMON_PACKING_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/compile.h"
#include "common/graph_module.h"
#include "common/op_rules.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"

namespace shardplane {

// One operator call, as it was emitted, with the values before and after all
// redistributions. Borrows the rule.
struct EmittedCall {
  const OpInstance* op = nullptr;
  std::vector<ValueId> operands;
  std::vector<ValueId> results;
};

// What is known of a program's values. `origins`: by value, the one that it was
// moved from or is the reduction of; itself where it was made.
struct EmittedProgram {
  std::vector<EmittedCall> calls;
  std::vector<ValueId> origins;
  // By parameter of the module: its value as stored, -1: not used.
  std::vector<ValueId> parameters;
};

// The cuts of the plan that meet no edge of what the program makes of them, as
// they ought to be: with few heads shared, and where that differs, not shared.
// Cuts that do meet them are not named.
std::vector<std::vector<Packing>> FindPackings(const EmittedProgram& program,
                                               absl::Span<const Value> values,
                                               const GraphModule& module,
                                               const DeviceMesh& mesh,
                                               const ResolvedPlan& plan);

// Compile, with the plan's cuts packed the way whose forward moves the fewest
// bytes, of equal ones whose backward does; `plan` is changed then, and has a
// note for each. For the first program of a deployment, whose parameters lie
// nowhere yet. Errors are Compile's.
absl::StatusOr<CompiledProgram> CompileAndPack(const GraphModule& module,
                                               const DeviceMesh& mesh,
                                               const Signature& signature,
                                               const CompileOptions& options,
                                               ResolvedPlan* plan);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PACKING_H_
