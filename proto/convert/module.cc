#include "proto/convert/module.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/initializer.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<ModuleNode> ModuleNodeFromProto(const pb::ModuleNode& message,
                                               const FieldPath& field) {
  ModuleNode node;
  node.fqn = message.fqn();
  node.type = message.type();
  node.bases.assign(message.bases().begin(), message.bases().end());
  SP_ASSIGN_OR_RETURN(node.attributes, ArgumentsFromProto(message.attributes(),
                                                          field, "attributes"));
  if (message.has_graph()) {
    SP_ASSIGN_OR_RETURN(node.graph,
                        FromProto(message.graph(), field.Member("graph")));
  }
  node.training = message.training();
  return node;
}

void ModuleNodeToProto(const ModuleNode& node, pb::ModuleNode* message) {
  message->set_fqn(node.fqn);
  message->set_type(node.type);
  message->mutable_bases()->Add(node.bases.begin(), node.bases.end());
  ArgumentsToProto(node.attributes, message->mutable_attributes());
  if (node.graph.has_value()) {
    *message->mutable_graph() = ToProto(*node.graph);
  }
  message->set_training(node.training);
}

// Random values are drawn as real numbers.
absl::Status CheckDrawable(const Parameter& parameter, const FieldPath& field) {
  const Initializer::Kind kind = parameter.initializer->kind;
  if (IsFloatingPoint(parameter.type.dtype) ||
      kind == Initializer::Kind::kZeros || kind == Initializer::Kind::kOnes) {
    return absl::OkStatus();
  }
  return InvalidField(
      field.Member("initializer"),
      absl::StrCat("'", parameter.fqn,
                   "' takes random values only with a floating dtype, got: ",
                   ToString(parameter.type.dtype)));
}

absl::StatusOr<Parameter> ParameterFromProto(const pb::Parameter& message,
                                             const FieldPath& field) {
  if (message.fqn().empty()) {
    return MissingField(field.Member("fqn"));
  }
  Parameter parameter;
  parameter.fqn = message.fqn();
  SP_ASSIGN_OR_RETURN(parameter.type,
                      FromProto(message.type(), field.Member("type")));
  parameter.requires_grad = message.requires_grad();
  parameter.buffer = message.buffer();
  parameter.alias_of = message.alias_of();
  if (parameter.requires_grad && !IsFloatingPoint(parameter.type.dtype)) {
    return InvalidField(
        field.Member("requires_grad"),
        absl::StrCat("'", parameter.fqn,
                     "' can carry a gradient only with a floating dtype, "
                     "got: ",
                     ToString(parameter.type.dtype)));
  }
  if (message.has_initializer()) {
    if (!message.meta()) {
      return InvalidField(
          field.Member("initializer"),
          absl::StrCat("'", parameter.fqn,
                       "' takes an initializer only with meta, got: one "
                       "without it"));
    }
    SP_ASSIGN_OR_RETURN(
        parameter.initializer,
        FromProto(message.initializer(), field.Member("initializer")));
    SP_RETURN_IF_ERROR(CheckDrawable(parameter, field));
  }
  return parameter;
}

void ParameterToProto(const Parameter& parameter, pb::Parameter* message) {
  message->set_fqn(parameter.fqn);
  *message->mutable_type() = ToProto(parameter.type);
  message->set_requires_grad(parameter.requires_grad);
  message->set_buffer(parameter.buffer);
  message->set_alias_of(parameter.alias_of);
  if (parameter.initializer.has_value()) {
    message->set_meta(true);
    *message->mutable_initializer() = ToProto(*parameter.initializer);
  }
}

absl::StatusOr<std::vector<ModuleNode>> ModulesFromProto(
    const pb::Module& message, const FieldPath& field) {
  if (message.modules().empty()) {
    return MissingField(field.Member("modules"));
  }
  SP_RETURN_IF_ERROR(
      CheckCount(field.Member("modules"), message.modules_size(), kMaxModules));
  std::vector<ModuleNode> modules;
  modules.reserve(message.modules_size());
  for (int i = 0; i < message.modules_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        ModuleNode node,
        ModuleNodeFromProto(message.modules(i), field.Element("modules", i)));
    modules.push_back(std::move(node));
  }
  return modules;
}

absl::StatusOr<std::vector<Parameter>> ParametersFromProto(
    const pb::Module& message, const FieldPath& field) {
  SP_RETURN_IF_ERROR(CheckCount(field.Member("parameters"),
                                message.parameters_size(), kMaxParameters));
  std::vector<Parameter> parameters;
  parameters.reserve(message.parameters_size());
  for (int i = 0; i < message.parameters_size(); ++i) {
    SP_ASSIGN_OR_RETURN(Parameter parameter,
                        ParameterFromProto(message.parameters(i),
                                           field.Element("parameters", i)));
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

// What meta parameters without an initializer of their own start from; by the
// owning module's type, so the tree must be there. Another name of a tied
// weight starts as the first one does.
absl::Status AddDefaults(const GraphModule& module, const pb::Module& message,
                         const FieldPath& field,
                         std::vector<Parameter>* parameters) {
  for (int i = 0; i < message.parameters_size(); ++i) {
    Parameter& parameter = (*parameters)[i];
    if (!message.parameters(i).meta() || parameter.initializer.has_value()) {
      continue;
    }
    const Parameter& first = module.Canonical(parameter);
    if (first.initializer.has_value()) {
      parameter.initializer = first.initializer;
      continue;
    }
    absl::StatusOr<Initializer> initializer = DefaultInitializer(module, first);
    if (!initializer.ok()) {
      return InField(initializer.status(),
                     field.Element("parameters", i).Member("initializer"));
    }
    parameter.initializer = *initializer;
  }
  return absl::OkStatus();
}

bool NeedsDefaults(const pb::Module& message) {
  return std::any_of(message.parameters().begin(), message.parameters().end(),
                     [](const pb::Parameter& parameter) {
                       return parameter.meta() && !parameter.has_initializer();
                     });
}

}  // namespace

absl::StatusOr<GraphModule> FromProto(const v1::Module& message,
                                      const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(std::vector<ModuleNode> nodes,
                      ModulesFromProto(message, field));
  SP_ASSIGN_OR_RETURN(std::vector<Parameter> parameters,
                      ParametersFromProto(message, field));
  absl::StatusOr<GraphModule> module =
      GraphModule::Create(std::move(nodes), parameters);
  if (!module.ok()) {
    return InField(module.status(), field);
  }
  if (!NeedsDefaults(message)) {
    return module;
  }
  SP_RETURN_IF_ERROR(AddDefaults(*module, message, field, &parameters));
  return GraphModule::Create(module->modules(), std::move(parameters));
}

v1::Module ToProto(const GraphModule& module) {
  pb::Module message;
  for (const ModuleNode& node : module.modules()) {
    ModuleNodeToProto(node, message.add_modules());
  }
  for (const Parameter& parameter : module.parameters()) {
    ParameterToProto(parameter, message.add_parameters());
  }
  return message;
}

}  // namespace shardplane
