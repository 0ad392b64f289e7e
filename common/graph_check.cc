#include "common/graph_check.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Checks one graph, node by node.
class Checker {
 public:
  Checker(const GraphModule& module, absl::string_view fqn)
      : module_(module), fqn_(fqn) {}

  absl::Status Check(const Graph& graph) {
    if (graph.nodes.empty() || graph.nodes.back().op != NodeOp::kOutput) {
      return Bad("must end with an output node",
                 graph.nodes.empty() ? "no nodes" : graph.nodes.back().name);
    }
    for (const Node& node : graph.nodes) {
      const bool last = &node == &graph.nodes.back();
      if (node.op == NodeOp::kOutput && !last) {
        return Bad("must have one output node", node.name);
      }
      SP_RETURN_IF_ERROR(CheckNode(node));
      if (!names_.insert(node.name).second) {
        return Bad("must have a name once", node.name);
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Bad(absl::string_view rule, absl::string_view got) const {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     absl::StrCat("the graph of module \"", fqn_, "\" ", rule,
                                  "; got: ", got),
                     {.reason = "INVALID_GRAPH",
                      .metadata = {{"fqn", fqn_}, {"node", std::string(got)}}});
  }

  absl::Status CheckNode(const Node& node) const {
    if (node.name.empty()) return Bad("must name its nodes", "\"\"");
    if (node.op == NodeOp::kOutput && node.args.size() != 1) {
      return Bad("must have an output node of one argument",
                 absl::StrCat(node.args.size(), " arguments"));
    }
    SP_RETURN_IF_ERROR(CheckTarget(node));
    for (const Argument& argument : node.args) {
      SP_RETURN_IF_ERROR(CheckArgument(node, argument));
    }
    for (const auto& [name, argument] : node.kwargs) {
      SP_RETURN_IF_ERROR(CheckArgument(node, argument));
    }
    return absl::OkStatus();
  }

  absl::Status CheckTarget(const Node& node) const {
    if (node.op == NodeOp::kGetAttr &&
        module_.FindParameter(node.target) == nullptr) {
      return Bad(absl::StrCat("names an unknown parameter or buffer at node ",
                              node.name),
                 absl::StrCat("\"", node.target, "\""));
    }
    if (node.op == NodeOp::kCallModule &&
        module_.FindModule(node.target) == nullptr) {
      return Bad(absl::StrCat("calls an unknown module at node ", node.name),
                 absl::StrCat("\"", node.target, "\""));
    }
    if (node.op == NodeOp::kCallFunction && node.target.empty()) {
      return Bad(absl::StrCat("must name the function of node ", node.name),
                 "\"\"");
    }
    return absl::OkStatus();
  }

  absl::Status CheckArgument(const Node& node, const Argument& argument) const {
    if (const auto* ref = std::get_if<NodeRef>(&argument.value)) {
      if (names_.contains(ref->name)) return absl::OkStatus();
      return Bad(
          absl::StrCat("uses what no node before it makes at node ", node.name),
          ToString(argument));
    }
    if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
      for (const Argument& item : *list) {
        SP_RETURN_IF_ERROR(CheckArgument(node, item));
      }
    }
    return absl::OkStatus();
  }

  const GraphModule& module_;
  const std::string fqn_;
  absl::btree_set<std::string> names_;
};

// The modules that a module's graph calls; by index.
std::vector<int> Calls(const GraphModule& module, int index) {
  std::vector<int> calls;
  const ModuleNode& caller = module.modules()[index];
  if (!caller.graph.has_value()) {
    // A graph written from attributes calls no one but the children.
    for (const auto& [name, child] : module.Children(index)) {
      calls.push_back(child);
    }
    return calls;
  }
  for (const Node& node : caller.graph->nodes) {
    if (node.op == NodeOp::kCallModule) {
      calls.push_back(module.ModuleIndex(node.target));
    }
  }
  return calls;
}

// Depth first with a stack of its own: a tree may be deeper than the thread's.
absl::Status CheckNoCircle(const GraphModule& module) {
  enum State { kNew, kOpen, kDone };
  std::vector<State> states(module.modules().size(), kNew);
  for (int root = 0; root < static_cast<int>(states.size()); ++root) {
    if (states[root] != kNew) continue;
    std::vector<std::pair<int, std::vector<int>>> open;
    open.emplace_back(root, Calls(module, root));
    states[root] = kOpen;
    while (!open.empty()) {
      auto& [index, calls] = open.back();
      if (calls.empty()) {
        states[index] = kDone;
        open.pop_back();
        continue;
      }
      const int next = calls.back();
      calls.pop_back();
      if (states[next] == kOpen) {
        const std::string& fqn = module.modules()[next].fqn;
        return MakeError(
            absl::StatusCode::kInvalidArgument,
            absl::StrCat("a module must not call itself, directly or through "
                         "others; got: \"",
                         fqn, "\""),
            {.reason = "INVALID_GRAPH", .metadata = {{"fqn", fqn}}});
      }
      if (states[next] == kDone) continue;
      states[next] = kOpen;
      open.emplace_back(next, Calls(module, next));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGraphs(const GraphModule& module) {
  for (const ModuleNode& node : module.modules()) {
    if (!node.graph.has_value()) continue;
    SP_RETURN_IF_ERROR(Checker(module, node.fqn).Check(*node.graph));
  }
  return CheckNoCircle(module);
}

}  // namespace shardplane
