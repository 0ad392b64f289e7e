#include "proto/convert/module.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr std::pair<pb::Node::Op, NodeOp> kNodeOps[] = {
    {pb::Node::OP_PLACEHOLDER, NodeOp::kPlaceholder},
    {pb::Node::OP_GET_ATTR, NodeOp::kGetAttr},
    {pb::Node::OP_CALL_FUNCTION, NodeOp::kCallFunction},
    {pb::Node::OP_CALL_MODULE, NodeOp::kCallModule},
    {pb::Node::OP_OUTPUT, NodeOp::kOutput},
};

absl::StatusOr<NodeOp> OpFromProto(pb::Node::Op op, const FieldPath& field) {
  for (const auto& [wire, value] : kNodeOps) {
    if (wire == op) {
      return value;
    }
  }
  return InvalidEnum(field, "a Node.Op", op);
}

pb::Node::Op OpToProto(NodeOp op) {
  for (const auto& [wire, value] : kNodeOps) {
    if (value == op) {
      return wire;
    }
  }
  return pb::Node::OP_UNSPECIFIED;
}

absl::StatusOr<Argument> ArgumentFromProto(const pb::Argument& message,
                                           const FieldPath& field, int depth);

absl::StatusOr<Argument> ListFromProto(const pb::Argument::List& message,
                                       const FieldPath& field, int depth) {
  if (depth >= kMaxArgumentDepth) {
    return InvalidField(
        field, absl::StrCat("expected lists at most ", kMaxArgumentDepth,
                            " deep, got: deeper ones"));
  }
  ArgumentList items;
  items.reserve(message.items_size());
  for (int i = 0; i < message.items_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        Argument item, ArgumentFromProto(message.items(i),
                                         field.Element("items", i), depth + 1));
    items.push_back(std::move(item));
  }
  return Argument{std::move(items)};
}

absl::StatusOr<Argument> ArgumentFromProto(const pb::Argument& message,
                                           const FieldPath& field, int depth) {
  switch (message.kind_case()) {
    case pb::Argument::kNone:
      return Argument{};
    case pb::Argument::kNode:
      return Argument{NodeRef{message.node()}};
    case pb::Argument::kIntValue:
      return Argument{message.int_value()};
    case pb::Argument::kFloatValue:
      return Argument{message.float_value()};
    case pb::Argument::kBoolValue:
      return Argument{message.bool_value()};
    case pb::Argument::kStringValue:
      return Argument{message.string_value()};
    case pb::Argument::kDtype: {
      SP_ASSIGN_OR_RETURN(const DType dtype,
                          FromProto(message.dtype(), field.Member("dtype")));
      return Argument{dtype};
    }
    case pb::Argument::kList:
      return ListFromProto(message.list(), field.Member("list"), depth);
    case pb::Argument::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field,
                      "none, node, int_value, float_value, bool_value, "
                      "string_value, dtype, list");
}

// Writes one alternative of an Argument.
struct ArgumentWriter {
  pb::Argument& out;

  void operator()(std::monostate) { out.mutable_none(); }
  void operator()(const NodeRef& ref) { out.set_node(ref.name); }
  void operator()(int64_t value) { out.set_int_value(value); }
  void operator()(double value) { out.set_float_value(value); }
  void operator()(bool value) { out.set_bool_value(value); }
  void operator()(const std::string& value) { out.set_string_value(value); }
  void operator()(DType value) { out.set_dtype(ToProto(value)); }
  void operator()(const ArgumentList& items) {
    pb::Argument::List* list = out.mutable_list();
    for (const Argument& item : items) {
      *list->add_items() = ToProto(item);
    }
  }
};

absl::StatusOr<Node> NodeFromProto(const pb::Node& message,
                                   const FieldPath& field) {
  Node node;
  if (message.name().empty()) {
    return MissingField(field.Member("name"));
  }
  node.name = message.name();
  SP_ASSIGN_OR_RETURN(node.op, OpFromProto(message.op(), field.Member("op")));
  if (node.op == NodeOp::kCallFunction && message.target().empty()) {
    return MissingField(field.Member("target"));
  }
  node.target = message.target();
  node.args.reserve(message.args_size());
  for (int i = 0; i < message.args_size(); ++i) {
    SP_ASSIGN_OR_RETURN(Argument argument,
                        FromProto(message.args(i), field.Element("args", i)));
    node.args.push_back(std::move(argument));
  }
  SP_ASSIGN_OR_RETURN(node.kwargs,
                      ArgumentsFromProto(message.kwargs(), field, "kwargs"));
  for (int i = 0; i < message.results_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        TensorType type,
        FromProto(message.results(i), field.Element("results", i)));
    node.results.push_back(std::move(type));
  }
  return node;
}

void NodeToProto(const Node& node, pb::Node* message) {
  message->set_name(node.name);
  message->set_op(OpToProto(node.op));
  message->set_target(node.target);
  for (const Argument& argument : node.args) {
    *message->add_args() = ToProto(argument);
  }
  ArgumentsToProto(node.kwargs, message->mutable_kwargs());
  for (const TensorType& type : node.results) {
    *message->add_results() = ToProto(type);
  }
}

}  // namespace

absl::StatusOr<Argument> FromProto(const v1::Argument& message,
                                   const FieldPath& field) {
  return ArgumentFromProto(message, field, 0);
}

v1::Argument ToProto(const Argument& argument) {
  pb::Argument message;
  std::visit(ArgumentWriter{message}, argument.value);
  return message;
}

absl::StatusOr<ArgumentMap> ArgumentsFromProto(
    const google::protobuf::Map<std::string, v1::Argument>& messages,
    const FieldPath& field, absl::string_view name) {
  ArgumentMap arguments;
  for (const auto& [key, message] : messages) {
    SP_ASSIGN_OR_RETURN(Argument argument,
                        FromProto(message, field.Entry(name, key)));
    arguments.emplace(key, std::move(argument));
  }
  return arguments;
}

void ArgumentsToProto(
    const ArgumentMap& arguments,
    google::protobuf::Map<std::string, v1::Argument>* messages) {
  for (const auto& [key, argument] : arguments) {
    (*messages)[key] = ToProto(argument);
  }
}

absl::StatusOr<Graph> FromProto(const v1::Graph& message,
                                const FieldPath& field) {
  if (message.nodes().empty()) {
    return MissingField(field.Member("nodes"));
  }
  SP_RETURN_IF_ERROR(CheckCount(field.Member("nodes"), message.nodes_size(),
                                kMaxNodesPerGraph));
  Graph graph;
  graph.nodes.reserve(message.nodes_size());
  for (int i = 0; i < message.nodes_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        Node node, NodeFromProto(message.nodes(i), field.Element("nodes", i)));
    graph.nodes.push_back(std::move(node));
  }
  return graph;
}

v1::Graph ToProto(const Graph& graph) {
  pb::Graph message;
  for (const Node& node : graph.nodes) {
    NodeToProto(node, message.add_nodes());
  }
  return message;
}

}  // namespace shardplane
