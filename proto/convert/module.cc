#include "proto/convert/module.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/initializer.h"
#include "common/known_modules.h"
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
  const Shape& shape = parameter.type.shape;
  const int64_t zero_row = parameter.initializer->zero_row.value_or(0);
  if (parameter.initializer->zero_row.has_value() &&
      (shape.empty() || zero_row >= shape[0])) {
    return InvalidField(
        field.Member("initializer").Member("zero_row"),
        absl::StrCat("expected a row of '", parameter.fqn, "', ",
                     ShapeToString(shape), ", got: ", zero_row));
  }
  const bool random =
      kind == Initializer::Kind::kUniform || kind == Initializer::Kind::kNormal;
  if (!random || IsFloatingPoint(parameter.type.dtype)) {
    return absl::OkStatus();
  }
  return InvalidField(
      field.Member("initializer"),
      absl::StrCat("'", parameter.fqn,
                   "' takes random values only with a floating dtype, got: ",
                   ToString(parameter.type.dtype)));
}

// What can be said before the type is known.
absl::StatusOr<ListedParameter> ParameterFromProto(const pb::Parameter& message,
                                                   const FieldPath& field) {
  if (message.fqn().empty()) {
    return MissingField(field.Member("fqn"));
  }
  ListedParameter listed;
  Parameter& parameter = listed.parameter;
  parameter.fqn = message.fqn();
  listed.has_type = message.has_type();
  if (listed.has_type) {
    SP_ASSIGN_OR_RETURN(parameter.type,
                        FromProto(message.type(), field.Member("type")));
  }
  parameter.requires_grad = message.requires_grad();
  parameter.buffer = message.buffer();
  parameter.alias_of = message.alias_of();
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
  }
  return listed;
}

// What depends on the type.
absl::Status CheckParameter(const Parameter& parameter,
                            const FieldPath& field) {
  if (parameter.requires_grad && !CarriesGradient(parameter.type.dtype)) {
    return InvalidField(
        field.Member("requires_grad"),
        absl::StrCat("'", parameter.fqn,
                     "' can carry a gradient only with a floating or "
                     "complex dtype, got: ",
                     ToString(parameter.type.dtype)));
  }
  if (!parameter.initializer.has_value()) return absl::OkStatus();
  return CheckDrawable(parameter, field);
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

// The parameters that the message lists, and those that attributes imply.
absl::StatusOr<std::vector<CompletedParameter>> ParametersFromProto(
    const pb::Module& message, const std::vector<ModuleNode>& nodes,
    const FieldPath& field) {
  SP_RETURN_IF_ERROR(CheckCount(field.Member("parameters"),
                                message.parameters_size(), kMaxParameters));
  std::vector<ListedParameter> listed;
  listed.reserve(message.parameters_size());
  for (int i = 0; i < message.parameters_size(); ++i) {
    SP_ASSIGN_OR_RETURN(ListedParameter parameter,
                        ParameterFromProto(message.parameters(i),
                                           field.Element("parameters", i)));
    listed.push_back(std::move(parameter));
  }
  absl::StatusOr<std::vector<CompletedParameter>> completed =
      CompleteParameters(nodes, std::move(listed));
  if (!completed.ok()) return InField(completed.status(), field);
  for (const CompletedParameter& one : *completed) {
    if (one.listed >= 0) {
      SP_RETURN_IF_ERROR(CheckParameter(
          one.parameter, field.Element("parameters", one.listed)));
      continue;
    }
    // Attributes may say more than a tensor can have.
    const auto type =
        FromProto(ToProto(one.parameter.type), field.Member("modules"));
    if (!type.ok()) {
      return WithMetadata(type.status(), "fqn", one.parameter.fqn);
    }
    SP_RETURN_IF_ERROR(CheckParameter(one.parameter, field.Member("modules")));
  }
  return completed;
}

// What files may call each parameter: its FQN, then its other names.
using NamesInFiles = absl::flat_hash_map<std::string, std::vector<std::string>>;
NamesInFiles NamesOf(const GraphModule& module) {
  NamesInFiles names;
  for (const Parameter& parameter : module.parameters()) {
    std::vector<std::string>& all = names[module.Canonical(parameter).fqn];
    all.insert(parameter.alias_of.empty() ? all.begin() : all.end(),
               parameter.fqn);
  }
  return names;
}

// What a meta parameter without an initializer of its own starts from: the
// module's files, else by the owning module's type.
absl::StatusOr<Initializer> DefaultOf(const GraphModule& module,
                                      const std::string& weights,
                                      const Parameter& parameter) {
  if (weights.empty()) return DefaultInitializer(module, parameter);
  return Initializer{.kind = Initializer::Kind::kFiles, .path = weights};
}

// Completes the initializers of meta parameters; the tree must be there.
// Another name of a tied weight starts as the first one does.
absl::Status AddDefaults(const GraphModule& module, const pb::Module& message,
                         const FieldPath& field,
                         std::vector<CompletedParameter>* parameters) {
  const NamesInFiles names = NamesOf(module);
  for (auto& [parameter, listed] : *parameters) {
    const bool meta = listed < 0 || message.parameters(listed).meta();
    if (!meta) continue;
    const Parameter& first = module.Canonical(parameter);
    if (!parameter.initializer.has_value()) {
      parameter.initializer = first.initializer;
    }
    if (!parameter.initializer.has_value()) {
      absl::StatusOr<Initializer> initializer =
          DefaultOf(module, message.weights(), first);
      if (!initializer.ok()) {
        return InField(
            initializer.status(),
            listed < 0
                ? field.Member("modules")
                : field.Element("parameters", listed).Member("initializer"));
      }
      parameter.initializer = *initializer;
    }
    if (parameter.initializer->kind == Initializer::Kind::kFiles &&
        parameter.initializer->names.empty()) {
      parameter.initializer->names = names.at(first.fqn);
    }
  }
  return absl::OkStatus();
}

std::vector<Parameter> Plain(const std::vector<CompletedParameter>& completed) {
  std::vector<Parameter> parameters;
  parameters.reserve(completed.size());
  for (const auto& [parameter, listed] : completed) {
    parameters.push_back(parameter);
  }
  return parameters;
}

bool NeedsDefaults(const pb::Module& message,
                   const std::vector<CompletedParameter>& completed) {
  return std::any_of(completed.begin(), completed.end(),
                     [&message](const CompletedParameter& one) {
                       if (one.listed < 0) return true;
                       const pb::Parameter& listed =
                           message.parameters(one.listed);
                       if (!listed.meta()) return false;
                       return !listed.has_initializer() ||
                              (listed.initializer().has_files() &&
                               listed.initializer().files().names().empty());
                     });
}

}  // namespace

absl::StatusOr<GraphModule> FromProto(const v1::Module& message,
                                      const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(std::vector<ModuleNode> nodes,
                      ModulesFromProto(message, field));
  SP_ASSIGN_OR_RETURN(std::vector<CompletedParameter> completed,
                      ParametersFromProto(message, nodes, field));
  absl::StatusOr<GraphModule> module =
      GraphModule::Create(std::move(nodes), Plain(completed));
  if (!module.ok()) {
    return InField(module.status(), field);
  }
  if (!NeedsDefaults(message, completed)) {
    return module;
  }
  SP_RETURN_IF_ERROR(AddDefaults(*module, message, field, &completed));
  return GraphModule::Create(module->modules(), Plain(completed));
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
