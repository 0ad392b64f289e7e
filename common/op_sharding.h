// How one call is cut: which factors on which mesh dims, what each operand has
// to be for it, and what the results are then.
#ifndef SHARDPLANE_COMMON_OP_SHARDING_H_
#define SHARDPLANE_COMMON_OP_SHARDING_H_

#include <vector>

#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/op_rules.h"
#include "common/tensor_spec.h"

namespace shardplane {

struct OperandState {
  TensorType type;
  DTensorSpec spec;
  bool requires_grad = false;
  bool parameter = false;  // cut by the plan, so that it stays cut
  friend bool operator==(const OperandState&, const OperandState&) = default;
};

struct OperandNeed {
  DTensorSpec spec;
  // Mesh dims along which the operand is replicated but the work differs by
  // rank: its gradient is Partial there (see "vary" in program_builder.h).
  std::vector<bool> vary;
};

struct OpSharding {
  std::vector<DimCuts> factor_cuts;  // of each factor
  std::vector<OperandNeed> operands;
  std::vector<DTensorSpec> results;
  // A reduced factor is cut: the added operand of Lowering::kAddTerm comes
  // after the reduction, and a mean is a sum.
  bool partial = false;
};

// For each mesh dim, in this order: one factor cut that some operand is cut
// along (operands that have it are Shard, others vary; a reduced one leaves
// Partial(sum)), or Partial(sum) operands passed through where the op is linear
// in them; everything replicated only where neither is possible, or where
// reducing first is cheaper than passing.
//   linear x:[S(1)] w:[S(1)]  ->  k cut, [P(sum)]
//   linear x:[R] w:[S(0)]     ->  n cut, x varies, [S(1)]
//   relu x:[P(sum)]           ->  x reduced to [R]
//   add x:[P(sum)] y:[P(sum)] ->  [P(sum)]
// Among several the cheapest in bytes moved, forward and backward; gathering a
// parameter that the plan cut counts a thousandfold.
OpSharding ChooseSharding(const OpInstance& op,
                          absl::Span<const OperandState> operands,
                          const DeviceMesh& mesh);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_SHARDING_H_
