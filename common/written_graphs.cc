#include "common/written_graphs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// All that a graph follows from, where a module has no children.
std::string KeyOf(const GraphModule& module, int index) {
  const ModuleNode& node = module.modules()[index];
  std::string key = absl::StrCat(node.type, "\n", node.training);
  for (const std::string& base : node.bases) absl::StrAppend(&key, "\n", base);
  for (const auto& [name, value] : node.attributes) {
    absl::StrAppend(&key, "\n=", name, " ", ToString(value));
  }
  for (const int parameter : module.ParametersOf(index)) {
    const Parameter& owned = module.parameters()[parameter];
    absl::StrAppend(&key, "\n.", SplitFqn(owned.fqn).second, " ",
                    ToString(owned.type));
  }
  // The graph of one with children calls them by their names.
  if (!module.Children(index).empty()) absl::StrAppend(&key, "\n#", index);
  return key;
}

}  // namespace

std::string WrittenGraph::TargetIn(absl::string_view module_fqn,
                                   const std::string& target) const {
  if (fqn == module_fqn) return target;
  return JoinFqn(module_fqn, absl::string_view(target).substr(
                                 fqn.empty() ? 0 : fqn.size() + 1));
}

absl::StatusOr<WrittenGraph> WrittenGraphs::Of(int index) {
  const ModuleNode& node = module_.modules()[index];
  if (node.graph.has_value()) return WrittenGraph{&*node.graph, node.fqn};
  const auto [it, is_new] = written_.try_emplace(KeyOf(module_, index));
  if (is_new) {
    absl::StatusOr<Graph> graph = GraphOf(module_, index);
    if (!graph.ok()) {
      written_.erase(it);
      return graph.status();
    }
    it->second = {*std::move(graph), index};
  }
  return WrittenGraph{&it->second.graph,
                      module_.modules()[it->second.index].fqn};
}

}  // namespace shardplane
