// Why a program's collectives are there: which modules they serve, and what
// they make of whose result. Read off the program and the plan.
#ifndef SHARDPLANE_COMMON_COLLECTIVE_CAUSES_H_
#define SHARDPLANE_COMMON_COLLECTIVE_CAUSES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"

namespace shardplane {

// One collective of a program. On the MLP, net1 colwise and net2 rowwise:
//   forward   all_reduce  {"net2"}  "sum of a rowwise linear"
//   backward  all_reduce  {"net1"}  "gradient of the input of net1"
struct CausedCollective {
  Phase phase = Phase::kForward;
  CollectiveRecord record = {};  // on rank 0
  ValueId value = 0;             // what is communicated; of several, the first
  // That it is there for, in order, each once.
  std::vector<std::string> modules = {};
  std::vector<std::string> parameters = {};  // that it, or its gradient, is of
  std::string fqn = {};                      // the nearest that holds them all
  std::string why = {};
};

// In the order in which they run; as many as Collectives() of both phases.
// `plan` was resolved for `module`, and the program compiled for both.
std::vector<CausedCollective> CausesOfCollectives(
    const GraphModule& module, const ResolvedPlan& plan,
    const ShardedProgram& program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_COLLECTIVE_CAUSES_H_
