#include "common/written_graphs.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"

namespace shardplane {
namespace {

// A parameter's name in the module that owns it.
absl::string_view NameIn(const ModuleNode& owner, const Parameter& parameter) {
  return absl::string_view(parameter.fqn)
      .substr(owner.fqn.empty() ? 0 : owner.fqn.size() + 1);
}

}  // namespace

std::string WrittenGraph::TargetIn(absl::string_view module_fqn,
                                   const std::string& target) const {
  if (fqn == module_fqn) return target;
  return JoinFqn(module_fqn, absl::string_view(target).substr(
                                 fqn.empty() ? 0 : fqn.size() + 1));
}

size_t WrittenGraphs::Hash::operator()(int index) const {
  if (!module->Children(index).empty()) return absl::HashOf(index);
  const ModuleNode& node = module->modules()[index];
  size_t hash = absl::HashOf(node.type, node.training, node.bases);
  for (const auto& [name, value] : node.attributes) {
    hash = absl::HashOf(hash, name);
  }
  for (const int parameter : module->ParametersOf(index)) {
    const Parameter& owned = module->parameters()[parameter];
    hash = absl::HashOf(hash, NameIn(node, owned), owned.type.shape);
  }
  return hash;
}

bool WrittenGraphs::Alike::operator()(int a, int b) const {
  if (a == b) return true;
  // The graph of one with children calls them by their names.
  if (!module->Children(a).empty() || !module->Children(b).empty()) {
    return false;
  }
  const ModuleNode& x = module->modules()[a];
  const ModuleNode& y = module->modules()[b];
  return x.type == y.type && x.training == y.training && x.bases == y.bases &&
         x.attributes == y.attributes &&
         std::ranges::equal(module->ParametersOf(a), module->ParametersOf(b),
                            [&](int i, int j) {
                              const Parameter& p = module->parameters()[i];
                              const Parameter& q = module->parameters()[j];
                              return NameIn(x, p) == NameIn(y, q) &&
                                     p.type == q.type;
                            });
}

absl::StatusOr<WrittenGraph> WrittenGraphs::Of(int index) {
  const ModuleNode& node = module_.modules()[index];
  if (node.graph.has_value()) return WrittenGraph{&*node.graph, node.fqn};
  auto it = written_.find(index);
  if (it == written_.end()) {
    absl::StatusOr<Graph> graph = GraphOf(module_, index);
    if (!graph.ok()) return graph.status();
    it = written_.emplace(index, *std::move(graph)).first;
  }
  return WrittenGraph{&it->second, module_.modules()[it->first].fqn};
}

}  // namespace shardplane
