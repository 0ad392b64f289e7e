// The graphs of module types that need none of their own.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/graph_module.h"

namespace shardplane {
namespace {

// Writes the graph of one module: its forward takes one tensor, "input", as
// torch.nn's own do.
class Writer {
 public:
  Writer(const GraphModule& module, int index)
      : module_(module), index_(index), node_(module.modules()[index]) {
    graph_.nodes.push_back({.name = "input", .op = NodeOp::kPlaceholder});
  }

  const ModuleNode& node() const { return node_; }
  const GraphModule& module() const { return module_; }
  int index() const { return index_; }

  // The attribute, or `otherwise` where it is left out.
  Argument Attribute(const std::string& name, const Argument& otherwise) const {
    const auto it = node_.attributes.find(name);
    return it == node_.attributes.end() ? otherwise : it->second;
  }

  bool OwnsParameter(absl::string_view name) const {
    return module_.FindParameter(JoinFqn(node_.fqn, name)) != nullptr;
  }

  Argument GetAttr(const std::string& name) {
    graph_.nodes.push_back({.name = name,
                            .op = NodeOp::kGetAttr,
                            .target = JoinFqn(node_.fqn, name)});
    return {NodeRef{name}};
  }

  // The parameter if the module owns it, else None: it was made without.
  Argument GetAttrOrNone(const std::string& name) {
    return OwnsParameter(name) ? GetAttr(name) : Argument{};
  }

  Argument Input() const { return {NodeRef{"input"}}; }

  Argument Call(const std::string& target, std::vector<Argument> args) {
    return Add(NodeOp::kCallFunction, target, std::move(args));
  }
  Argument CallModule(const std::string& fqn, Argument input) {
    return Add(NodeOp::kCallModule, fqn, {std::move(input)});
  }
  // Of the last node.
  void SetKwarg(const std::string& name, Argument value) {
    graph_.nodes.back().kwargs[name] = std::move(value);
  }

  Graph Finish(Argument result) && {
    graph_.nodes.push_back(
        {.name = "output", .op = NodeOp::kOutput, .args = {std::move(result)}});
    return std::move(graph_);
  }

  absl::Status Missing(absl::string_view what) const {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("module \"", node_.fqn, "\" of type ", node_.type,
                     " needs ", what, "; got: none"),
        {.reason = "INVALID_MODULE",
         .metadata = {{"fqn", node_.fqn}, {"expected", std::string(what)}}});
  }

 private:
  Argument Add(NodeOp op, const std::string& target,
               std::vector<Argument> args) {
    const std::string name = absl::StrCat("call_", ++calls_);
    graph_.nodes.push_back(
        {.name = name, .op = op, .target = target, .args = std::move(args)});
    return {NodeRef{name}};
  }

  const GraphModule& module_;
  const int index_;
  const ModuleNode& node_;
  Graph graph_;
  int calls_ = 0;
};

absl::StatusOr<Graph> Linear(Writer writer) {
  if (!writer.OwnsParameter("weight")) {
    return writer.Missing("a parameter \"weight\"");
  }
  const Argument weight = writer.GetAttr("weight");
  std::vector<Argument> args = {writer.Input(), weight};
  if (writer.OwnsParameter("bias")) args.push_back(writer.GetAttr("bias"));
  const Argument result = writer.Call("aten.linear.default", std::move(args));
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Embedding(Writer writer) {
  if (!writer.OwnsParameter("weight")) {
    return writer.Missing("a parameter \"weight\"");
  }
  if (writer.Attribute("max_norm", {}) != Argument{}) {
    return MakeError(
        absl::StatusCode::kUnimplemented,
        absl::StrCat("module \"", writer.node().fqn,
                     "\": an Embedding with max_norm changes its weight in "
                     "forward, which is not supported; got: max_norm=",
                     ToString(writer.Attribute("max_norm", {}))),
        {.reason = "MODULE_UNSUPPORTED",
         .metadata = {{"fqn", writer.node().fqn}}});
  }
  Argument padding = writer.Attribute("padding_idx", {});
  if (padding == Argument{}) padding = {int64_t{-1}};
  const Argument weight = writer.GetAttr("weight");
  const Argument result =
      writer.Call("aten.embedding.default", {weight, writer.Input(), padding});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> LayerNorm(Writer writer) {
  const Argument shape = writer.Attribute("normalized_shape", {});
  if (!std::holds_alternative<ArgumentList>(shape.value)) {
    return writer.Missing("an attribute \"normalized_shape\" (a list)");
  }
  const Argument weight = writer.GetAttrOrNone("weight");
  const Argument bias = writer.GetAttrOrNone("bias");
  const Argument eps = writer.Attribute("eps", {1e-5});
  const Argument result = writer.Call(
      "aten.layer_norm.default", {writer.Input(), shape, weight, bias, eps});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> RmsNorm(Writer writer) {
  const Argument shape = writer.Attribute("normalized_shape", {});
  if (!std::holds_alternative<ArgumentList>(shape.value)) {
    return writer.Missing("an attribute \"normalized_shape\" (a list)");
  }
  const Argument weight = writer.GetAttrOrNone("weight");
  const Argument result =
      writer.Call("aten.rms_norm.default",
                  {writer.Input(), shape, weight, writer.Attribute("eps", {})});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Gelu(Writer writer) {
  const Argument result = writer.Call("aten.gelu.default", {writer.Input()});
  const Argument none = {std::string("none")};
  const Argument approximate = writer.Attribute("approximate", none);
  if (approximate != none) writer.SetKwarg("approximate", approximate);
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> SoftmaxAs(Writer writer, const std::string& target) {
  const Argument dim = writer.Attribute("dim", {});
  if (!std::holds_alternative<int64_t>(dim.value)) {
    return writer.Missing("an attribute \"dim\" (an integer)");
  }
  const Argument result = writer.Call(target, {writer.Input(), dim});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Softmax(Writer writer) {
  return SoftmaxAs(std::move(writer), "aten.softmax.int");
}

absl::StatusOr<Graph> LogSoftmax(Writer writer) {
  return SoftmaxAs(std::move(writer), "aten.log_softmax.int");
}

absl::StatusOr<Graph> Identity(Writer writer) {
  const Argument input = writer.Input();
  return std::move(writer).Finish(input);
}

absl::StatusOr<Graph> Dropout(Writer writer) {
  const Argument p = writer.Attribute("p", {0.5});
  if (!writer.node().training || p == Argument{0.0} ||
      p == Argument{int64_t{0}}) {
    return Identity(std::move(writer));
  }
  const Argument result =
      writer.Call("aten.dropout.default", {writer.Input(), p, {true}});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Flatten(Writer writer) {
  const Argument result =
      writer.Call("aten.flatten.using_ints",
                  {writer.Input(), writer.Attribute("start_dim", {int64_t{1}}),
                   writer.Attribute("end_dim", {int64_t{-1}})});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Sequential(Writer writer) {
  Argument value = writer.Input();
  for (const auto& [name, child] : writer.module().Children(writer.index())) {
    value = writer.CallModule(writer.module().modules()[child].fqn,
                              std::move(value));
  }
  return std::move(writer).Finish(std::move(value));
}

// A type whose forward is one op of one tensor.
struct PointwiseRow {
  const char* type;
  const char* target;
};
constexpr PointwiseRow kPointwise[] = {
    {"ReLU", "aten.relu.default"},
    {"SiLU", "aten.silu.default"},
    {"Tanh", "aten.tanh.default"},
    {"Sigmoid", "aten.sigmoid.default"},
};

struct TypeRow {
  const char* type;
  absl::StatusOr<Graph> (*write)(Writer writer);
};
constexpr TypeRow kTypes[] = {
    {"Linear", Linear},
    {"Embedding", Embedding},
    {"LayerNorm", LayerNorm},
    {"RMSNorm", RmsNorm},
    {"GELU", Gelu},
    {"Softmax", Softmax},
    {"LogSoftmax", LogSoftmax},
    {"Identity", Identity},
    {"Dropout", Dropout},
    {"Flatten", Flatten},
    {"Sequential", Sequential},
};

// Whether the type itself is known: a subclass may have a forward of its own.
bool IsExactly(const ModuleNode& node, absl::string_view type) {
  ModuleNode without_bases;
  without_bases.type = node.type;
  return IsA(without_bases, type);
}

}  // namespace

absl::StatusOr<Graph> GraphOf(const GraphModule& module, int index) {
  const ModuleNode& node = module.modules()[index];
  if (node.graph.has_value()) return *node.graph;
  for (const PointwiseRow& row : kPointwise) {
    if (!IsExactly(node, row.type)) continue;
    Writer writer(module, index);
    const Argument result = writer.Call(row.target, {writer.Input()});
    return std::move(writer).Finish(result);
  }
  for (const TypeRow& row : kTypes) {
    if (IsExactly(node, row.type)) return row.write(Writer(module, index));
  }
  return MakeError(
      absl::StatusCode::kUnimplemented,
      absl::StrCat("module \"", node.fqn,
                   "\" has no graph and its type is none that the core can "
                   "write one for; export it with torch.export or give the "
                   "module a graph; got: ",
                   node.type.empty() ? "no type" : node.type),
      {.reason = "MODULE_WITHOUT_GRAPH",
       .metadata = {{"fqn", node.fqn},
                    {"type", node.type},
                    {"remedy", "give the module a graph"}}});
}

}  // namespace shardplane
