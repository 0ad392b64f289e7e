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
#include "common/known_modules.h"

namespace shardplane {
namespace {

// Writes the graph of one module: its forward takes one tensor, "input", as
// torch.nn's own do.
class Writer {
 public:
  Writer(const GraphModule& module, int index, KnownAttributes attributes)
      : module_(module),
        index_(index),
        node_(module.modules()[index]),
        attributes_(std::move(attributes)) {
    graph_.nodes.push_back({.name = "input", .op = NodeOp::kPlaceholder});
  }

  const ModuleNode& node() const { return node_; }
  const GraphModule& module() const { return module_; }
  int index() const { return index_; }

  const Argument& Attribute(absl::string_view name) const {
    return attributes_.Get(name);
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

  absl::Status Missing(absl::string_view what,
                       absl::string_view got = "none") const {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("module \"", node_.fqn, "\" of type ", node_.type,
                     " needs ", what, "; got: ", got),
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
  const KnownAttributes attributes_;
  Graph graph_;
  int calls_ = 0;
};

// Of Linear and Embedding.
constexpr absl::string_view kNeedsWeight =
    "a parameter \"weight\", or attributes that say its shape";

absl::StatusOr<Graph> Linear(Writer writer) {
  if (!writer.OwnsParameter("weight")) return writer.Missing(kNeedsWeight);
  const Argument weight = writer.GetAttr("weight");
  std::vector<Argument> args = {writer.Input(), weight};
  if (writer.OwnsParameter("bias")) args.push_back(writer.GetAttr("bias"));
  const Argument result = writer.Call("aten.linear.default", std::move(args));
  return std::move(writer).Finish(result);
}

// -1, aten's word for none, unless the module has a padding row.
absl::StatusOr<int64_t> PaddingOf(const Writer& writer) {
  const auto* padding =
      std::get_if<int64_t>(&writer.Attribute("padding_idx").value);
  if (padding == nullptr) return -1;
  const Shape& shape = writer.module()
                           .FindParameter(JoinFqn(writer.node().fqn, "weight"))
                           ->type.shape;
  const int64_t rows = shape.empty() ? 0 : shape[0];
  if (*padding >= -rows && *padding < rows) {
    return *padding < 0 ? *padding + rows : *padding;
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("module \"", writer.node().fqn,
                   "\": padding_idx must be one of the ", rows,
                   " rows; got: ", *padding),
      {.reason = "INVALID_MODULE", .metadata = {{"fqn", writer.node().fqn}}});
}

absl::StatusOr<Graph> Embedding(Writer writer) {
  if (!writer.OwnsParameter("weight")) return writer.Missing(kNeedsWeight);
  if (writer.Attribute("max_norm") != Argument{}) {
    return MakeError(
        absl::StatusCode::kUnimplemented,
        absl::StrCat("module \"", writer.node().fqn,
                     "\": an Embedding with max_norm changes its weight in "
                     "forward, which is not supported; got: max_norm=",
                     ToString(writer.Attribute("max_norm"))),
        {.reason = "MODULE_UNSUPPORTED",
         .metadata = {{"fqn", writer.node().fqn}}});
  }
  SP_ASSIGN_OR_RETURN(const int64_t padding, PaddingOf(writer));
  const Argument weight = writer.GetAttr("weight");
  const Argument result = writer.Call("aten.embedding.default",
                                      {weight, writer.Input(), {padding}});
  return std::move(writer).Finish(result);
}

constexpr absl::string_view kNeedsShape =
    "an attribute \"normalized_shape\" (a list)";

absl::StatusOr<Graph> LayerNorm(Writer writer) {
  const Argument shape = writer.Attribute("normalized_shape");
  if (shape == Argument{}) return writer.Missing(kNeedsShape);
  const Argument weight = writer.GetAttrOrNone("weight");
  const Argument bias = writer.GetAttrOrNone("bias");
  const Argument result = writer.Call(
      "aten.layer_norm.default",
      {writer.Input(), shape, weight, bias, writer.Attribute("eps")});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> RmsNorm(Writer writer) {
  const Argument shape = writer.Attribute("normalized_shape");
  if (shape == Argument{}) return writer.Missing(kNeedsShape);
  const Argument weight = writer.GetAttrOrNone("weight");
  const Argument result =
      writer.Call("aten.rms_norm.default",
                  {writer.Input(), shape, weight, writer.Attribute("eps")});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Gelu(Writer writer) {
  const Argument result = writer.Call("aten.gelu.default", {writer.Input()});
  const Argument approximate = writer.Attribute("approximate");
  if (approximate != Argument{std::string("none")}) {
    writer.SetKwarg("approximate", approximate);
  }
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> SoftmaxAs(Writer writer, const std::string& target) {
  const Argument dim = writer.Attribute("dim");
  if (dim == Argument{}) {
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
  const Argument p = writer.Attribute("p");
  const double rate = std::get<double>(p.value);
  if (!(rate >= 0 && rate <= 1)) {
    return writer.Missing("an attribute \"p\" from 0 to 1", ToString(p));
  }
  if (!writer.node().training || rate == 0) return Identity(std::move(writer));
  const Argument result =
      writer.Call("aten.dropout.default", {writer.Input(), p, {true}});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Flatten(Writer writer) {
  const Argument result = writer.Call(
      "aten.flatten.using_ints", {writer.Input(), writer.Attribute("start_dim"),
                                  writer.Attribute("end_dim")});
  return std::move(writer).Finish(result);
}

absl::StatusOr<Graph> Unflatten(Writer writer) {
  const Argument dim = writer.Attribute("dim");
  const Argument sizes = writer.Attribute("unflattened_size");
  if (dim == Argument{} || sizes == Argument{}) {
    return writer.Missing(
        "attributes \"dim\" (an integer) and \"unflattened_size\" (a list)");
  }
  const Argument result =
      writer.Call("aten.unflatten.int", {writer.Input(), dim, sizes});
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

absl::StatusOr<Graph> Container(Writer writer) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("module \"", writer.node().fqn, "\" of type ",
                   writer.node().type,
                   " has no forward: a graph of the module around it must call "
                   "its children one by one; got: a call of it"),
      {.reason = "MODULE_WITHOUT_FORWARD",
       .metadata = {{"fqn", writer.node().fqn}, {"type", writer.node().type}}});
}

// A type whose forward is one op: of its input, then of these attributes.
struct OneOpRow {
  const char* type;
  const char* target;
  const char* attributes[2] = {};
};
constexpr OneOpRow kOneOp[] = {
    {"ReLU", "aten.relu.default"},
    {"ReLU6", "aten.relu6.default"},
    {"SiLU", "aten.silu.default"},
    {"Mish", "aten.mish.default"},
    {"Tanh", "aten.tanh.default"},
    {"Sigmoid", "aten.sigmoid.default"},
    {"LogSigmoid", "aten.log_sigmoid.default"},
    {"Hardsigmoid", "aten.hardsigmoid.default"},
    {"Hardswish", "aten.hardswish.default"},
    {"Hardtanh", "aten.hardtanh.default", {"min_val", "max_val"}},
    {"LeakyReLU", "aten.leaky_relu.default", {"negative_slope"}},
    {"ELU", "aten.elu.default", {"alpha"}},
    {"Softplus", "aten.softplus.default", {"beta", "threshold"}},
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
    {"Unflatten", Unflatten},
    {"Sequential", Sequential},
    {"ModuleList", Container},
    {"ModuleDict", Container},
};

Graph OneOp(const OneOpRow& row, Writer writer) {
  std::vector<Argument> args = {writer.Input()};
  for (const char* name : row.attributes) {
    if (name != nullptr) args.push_back(writer.Attribute(name));
  }
  const Argument result = writer.Call(row.target, std::move(args));
  return std::move(writer).Finish(result);
}

absl::Status NoGraph(const ModuleNode& node) {
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

}  // namespace

absl::string_view KnownType(const ModuleNode& module) {
  const std::string bare = SplitFqn(module.type).second;
  absl::string_view type;
  for (const OneOpRow& row : kOneOp) {
    if (row.type == bare) type = row.type;
  }
  for (const TypeRow& row : kTypes) {
    if (row.type == bare) type = row.type;
  }
  ModuleNode without_bases;
  without_bases.type = module.type;
  return !type.empty() && IsA(without_bases, type) ? type : "";
}

absl::StatusOr<Graph> GraphOf(const GraphModule& module, int index) {
  const ModuleNode& node = module.modules()[index];
  if (node.graph.has_value()) return *node.graph;
  const absl::string_view type = KnownType(node);
  if (type.empty()) return NoGraph(node);
  SP_ASSIGN_OR_RETURN(KnownAttributes attributes,
                      KnownAttributes::Create(node, type));
  Writer writer(module, index, std::move(attributes));
  for (const OneOpRow& row : kOneOp) {
    if (row.type == type) return OneOp(row, std::move(writer));
  }
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.write(std::move(writer));
  }
  return NoGraph(node);
}

}  // namespace shardplane
