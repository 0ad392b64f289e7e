// What a style does at the edges of its module.
#ifndef SHARDPLANE_COMMON_STYLE_EDGES_H_
#define SHARDPLANE_COMMON_STYLE_EDGES_H_

#include <optional>

#include "common/graph_module.h"
#include "common/parallelize_plan.h"

namespace shardplane {

// Source: torch.distributed.tensor.parallel.style.
struct StyleEdges {
  // Of one input, the first or the only keyword's; nullopt: `inputs` has all.
  // Of several where `inputs` names keywords: of those, and of as many inputs
  // by position.
  std::optional<LayoutChange> first_input;
  PrepareModuleInput inputs;
  PrepareModuleOutput outputs;
  // How the output, the first of several, lies before it is changed, by the
  // style's parameters.
  std::optional<Placement> made;
};
StyleEdges EdgesOf(const ParallelStyle& style, const ModuleNode& module);

// Whether a style says where a module's own parameters lie: one a module.
bool PlacesParameters(const ParallelStyle& style);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_STYLE_EDGES_H_
