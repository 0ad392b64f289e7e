// A module as data: a tree of FQNs with parameters and one graph a module,
// what torch.export and unflatten yield.
#ifndef SHARDPLANE_COMMON_GRAPH_MODULE_H_
#define SHARDPLANE_COMMON_GRAPH_MODULE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/fqn.h"
#include "common/tensor_type.h"

namespace shardplane {

// A reference to a node of the same graph, by name.
struct NodeRef {
  std::string name;
  friend bool operator==(const NodeRef&, const NodeRef&) = default;
};

struct Argument;
using ArgumentList = std::vector<Argument>;

// An argument of a node. Text form: `%x`, `3`, `0.5`, `true`, `"none"`, `f32`,
// `[1, %y]`, `None`.
struct Argument {
  std::variant<std::monostate, NodeRef, int64_t, double, bool, std::string,
               DType, ArgumentList>
      value;
  friend bool operator==(const Argument&, const Argument&) = default;
};

std::string ToString(const Argument& argument);

enum class NodeOp {
  kPlaceholder,
  kGetAttr,
  kCallFunction,
  kCallModule,
  kOutput
};

struct Node {
  std::string name;
  NodeOp op = NodeOp::kPlaceholder;
  std::string target;  // aten overload, FQN of a module, parameter or buffer
  std::vector<Argument> args;
  absl::btree_map<std::string, Argument> kwargs;
  std::vector<TensorType> results;  // as the exporter saw them; may be empty
  friend bool operator==(const Node&, const Node&) = default;
};

struct Graph {
  std::vector<Node> nodes;
  friend bool operator==(const Graph&, const Graph&) = default;
};

struct ModuleNode {
  std::string fqn;                 // "" is the root
  std::string type;                // "torch.nn.Linear"
  std::vector<std::string> bases;  // names of base classes, nearest first
  absl::btree_map<std::string, Argument> attributes;
  std::optional<Graph> graph;
  bool training = true;
  friend bool operator==(const ModuleNode&, const ModuleNode&) = default;
};

// First values: made (see common/initializer.h), or kept in files.
struct Initializer {
  enum class Kind { kZeros, kOnes, kUniform, kNormal, kFiles };
  Kind kind = Kind::kZeros;
  double a = 0;  // uniform: low; normal: mean
  double b = 0;  // uniform: high; normal: standard deviation
  // Index along dim 0 whose values are zero: an Embedding's padding_idx.
  std::optional<int64_t> zero_row = std::nullopt;
  // Files: where workers find them, and what the tensor may be called there.
  std::string path = "";
  std::vector<std::string> names = {};
  friend bool operator==(const Initializer&, const Initializer&) = default;
};

struct Parameter {
  std::string fqn;
  TensorType type;
  bool requires_grad = true;
  bool buffer = false;
  std::string alias_of;  // FQN of the first name of the same tensor, or ""
  // Set for a parameter without data: how its values are made.
  std::optional<Initializer> initializer;
  friend bool operator==(const Parameter&, const Parameter&) = default;
};

// A module tree. A value; valid once created. Modules are in order of
// registration, parents before children.
class GraphModule {
 public:
  // InvalidArgument, naming the FQN: no root, a module whose parent is missing
  // or comes later, an FQN twice, a parameter whose module is missing, an alias
  // of an unknown parameter or with another type, a graph with an unknown
  // reference, a name twice, a call of an unknown module, or no output.
  static absl::StatusOr<GraphModule> Create(std::vector<ModuleNode> modules,
                                            std::vector<Parameter> parameters);

  GraphModule() = default;

  const std::vector<ModuleNode>& modules() const { return modules_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  const ModuleNode* FindModule(absl::string_view fqn) const;
  const Parameter* FindParameter(absl::string_view fqn) const;
  // The parameter itself, or the one that it is another name of.
  const Parameter& Canonical(const Parameter& parameter) const;

  // Immediate children in order of registration: (name, index in modules()).
  const std::vector<std::pair<std::string, int>>& Children(int module) const {
    return children_[module];
  }
  // Indices of the parameters and buffers that the module itself owns.
  const std::vector<int>& ParametersOf(int module) const {
    return parameters_of_[module];
  }
  int ModuleIndex(absl::string_view fqn) const;  // -1: no such module

  friend bool operator==(const GraphModule&, const GraphModule&) = default;

 private:
  absl::Status AddModule(ModuleNode module);
  absl::Status AddParameter(Parameter parameter);

  std::vector<ModuleNode> modules_;
  std::vector<Parameter> parameters_;
  std::vector<std::vector<std::pair<std::string, int>>> children_;
  std::vector<std::vector<int>> parameters_of_;
  absl::flat_hash_map<std::string, int> module_index_;
  absl::flat_hash_map<std::string, int> parameter_index_;
};

// Whether the module's type or one of its bases is torch's class `type`, a bare
// name: "Linear" matches "torch.nn.modules.linear.Linear", "torch.nn.Linear"
// and a bare "Linear", but not "my.package.Linear" without such a base. A full
// name matches itself.
bool IsA(const ModuleNode& module, absl::string_view type);

// The graph of a module: its own, or the one written from the attributes of a
// known type. Unimplemented, naming FQN and type, if there is neither.
absl::StatusOr<Graph> GraphOf(const GraphModule& module, int index);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_GRAPH_MODULE_H_
