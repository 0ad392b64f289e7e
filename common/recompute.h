// Which modules' activations are made anew for the backward pass. Used by
// compile.cc.
#ifndef SHARDPLANE_COMMON_RECOMPUTE_H_
#define SHARDPLANE_COMMON_RECOMPUTE_H_

#include <string>
#include <vector>

#include "common/graph_module.h"
#include "common/parallelize_plan.h"

namespace shardplane {

// By index of the module: whether a pattern names it. Patterns are those of a
// plan (common/plan_matching); one without a match is a warning.
std::vector<bool> RecomputedModules(const GraphModule& module,
                                    const std::vector<std::string>& patterns,
                                    std::vector<Diagnostic>* diagnostics);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_RECOMPUTE_H_
