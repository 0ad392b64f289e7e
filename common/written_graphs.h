// The graphs that modules run, those of known types written once for all
// modules that are alike.
#ifndef SHARDPLANE_COMMON_WRITTEN_GRAPHS_H_
#define SHARDPLANE_COMMON_WRITTEN_GRAPHS_H_

#include <cstddef>
#include <string>

#include "absl/container/node_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/graph_module.h"

namespace shardplane {

// A graph, and the FQN of the module that it was written for: parameters that
// it names below that are the same ones of the module at hand.
struct WrittenGraph {
  const Graph* graph = nullptr;
  absl::string_view fqn;

  // "layers.0.up.weight" of a graph written for "layers.0.up", in "head":
  // "head.weight".
  std::string TargetIn(absl::string_view module_fqn,
                       const std::string& target) const;
};

class WrittenGraphs {
 public:
  // `module` must outlive it.
  explicit WrittenGraphs(const GraphModule& module)
      : module_(module), written_(0, Hash{&module}, Alike{&module}) {}

  // Errors of GraphOf. The graph stays where it is.
  absl::StatusOr<WrittenGraph> Of(int index);

 private:
  // Of all that the graph of a known type follows from.
  struct Hash {
    const GraphModule* module;
    size_t operator()(int index) const;
  };
  struct Alike {
    const GraphModule* module;
    bool operator()(int a, int b) const;
  };

  const GraphModule& module_;
  // By the module that it was written for.
  absl::node_hash_map<int, Graph, Hash, Alike> written_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_WRITTEN_GRAPHS_H_
