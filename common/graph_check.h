// What must hold of the graphs of a module tree.
#ifndef SHARDPLANE_COMMON_GRAPH_CHECK_H_
#define SHARDPLANE_COMMON_GRAPH_CHECK_H_

#include "absl/status/status.h"
#include "common/graph_module.h"

namespace shardplane {

// InvalidArgument, naming the module's FQN and the node: a name twice, a
// reference to a node that does not come before, a get_attr of an unknown
// parameter, a call of an unknown module, an output that is missing, doubled or
// not last, modules that call each other in a circle.
absl::Status CheckGraphs(const GraphModule& module);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_GRAPH_CHECK_H_
