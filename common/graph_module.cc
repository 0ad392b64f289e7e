#include "common/graph_module.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "common/graph_check.h"

namespace shardplane {
namespace {

absl::Status Bad(absl::string_view message, absl::string_view fqn) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(message, "; got: \"", fqn, "\""),
      {.reason = "INVALID_MODULE", .metadata = {{"fqn", std::string(fqn)}}});
}

struct ArgumentText {
  std::string operator()(std::monostate) const { return "None"; }
  std::string operator()(const NodeRef& ref) const {
    return absl::StrCat("%", ref.name);
  }
  std::string operator()(int64_t value) const { return absl::StrCat(value); }
  std::string operator()(double value) const { return absl::StrCat(value); }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const std::string& value) const {
    return absl::StrCat("\"", value, "\"");
  }
  std::string operator()(DType value) const { return ToString(value); }
  std::string operator()(const ArgumentList& list) const {
    const auto format = [](std::string* out, const Argument& item) {
      absl::StrAppend(out, ToString(item));
    };
    return absl::StrCat("[", absl::StrJoin(list, ", ", format), "]");
  }
};

absl::Status CheckParameter(const Parameter& parameter) {
  for (const int64_t extent : parameter.type.shape) {
    if (extent < 0) {
      return Bad(
          absl::StrCat("a parameter's extents must not be negative, not ",
                       ToString(parameter.type)),
          parameter.fqn);
    }
  }
  if (parameter.requires_grad && !parameter.buffer &&
      !CarriesGradient(parameter.type.dtype)) {
    return Bad(absl::StrCat("only a floating-point or complex parameter can "
                            "require a gradient, not ",
                            ToString(parameter.type)),
               parameter.fqn);
  }
  return absl::OkStatus();
}

// Of all parameters at once: a name may stand before the one it is an alias of.
absl::Status CheckAliases(const GraphModule& module) {
  for (const Parameter& parameter : module.parameters()) {
    if (parameter.alias_of.empty()) continue;
    const Parameter* canonical = module.FindParameter(parameter.alias_of);
    if (canonical == nullptr || !canonical->alias_of.empty()) {
      return Bad(absl::StrCat("\"", parameter.fqn,
                              "\" must be an alias of a parameter that is no "
                              "alias itself"),
                 parameter.alias_of);
    }
    if (canonical->type != parameter.type) {
      return Bad(
          absl::StrCat("\"", parameter.fqn, "\" is ", ToString(parameter.type),
                       " and its first name ", ToString(canonical->type),
                       "; tied parameters must have one type"),
          parameter.alias_of);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string ToString(const Argument& argument) {
  return std::visit(ArgumentText{}, argument.value);
}

absl::Status GraphModule::AddModule(ModuleNode module) {
  const int index = static_cast<int>(modules_.size());
  const auto [parent, name] = SplitFqn(module.fqn);
  if (index == 0 && !module.fqn.empty()) {
    return Bad("the first module must be the root, whose FQN is \"\"",
               module.fqn);
  }
  if (!module_index_.emplace(module.fqn, index).second) {
    return Bad("a module's FQN must occur once", module.fqn);
  }
  if (index > 0) {
    const int parent_index = ModuleIndex(parent);
    if (parent_index == -1 || name.empty()) {
      return Bad(absl::StrCat("the parent \"", parent,
                              "\" of a module must come before it"),
                 module.fqn);
    }
    children_[parent_index].emplace_back(name, index);
  }
  modules_.push_back(std::move(module));
  children_.emplace_back();
  parameters_of_.emplace_back();
  return absl::OkStatus();
}

absl::Status GraphModule::AddParameter(Parameter parameter) {
  const int index = static_cast<int>(parameters_.size());
  const auto [owner, name] = SplitFqn(parameter.fqn);
  const int owner_index = ModuleIndex(owner);
  if (owner_index == -1 || name.empty()) {
    return Bad(absl::StrCat("the module \"", owner,
                            "\" of a parameter must be in the tree"),
               parameter.fqn);
  }
  if (module_index_.contains(parameter.fqn) ||
      !parameter_index_.emplace(parameter.fqn, index).second) {
    return Bad("a parameter's FQN must occur once", parameter.fqn);
  }
  SP_RETURN_IF_ERROR(CheckParameter(parameter));
  parameters_of_[owner_index].push_back(index);
  parameters_.push_back(std::move(parameter));
  return absl::OkStatus();
}

absl::StatusOr<GraphModule> GraphModule::Create(
    std::vector<ModuleNode> modules, std::vector<Parameter> parameters) {
  GraphModule result;
  if (modules.empty()) {
    return Bad("a module tree needs a root, whose FQN is \"\"", "no modules");
  }
  result.modules_.reserve(modules.size());
  result.children_.reserve(modules.size());
  result.parameters_of_.reserve(modules.size());
  result.module_index_.reserve(modules.size());
  result.parameters_.reserve(parameters.size());
  result.parameter_index_.reserve(parameters.size());
  for (ModuleNode& module : modules) {
    SP_RETURN_IF_ERROR(result.AddModule(std::move(module)));
  }
  for (Parameter& parameter : parameters) {
    SP_RETURN_IF_ERROR(result.AddParameter(std::move(parameter)));
  }
  SP_RETURN_IF_ERROR(CheckAliases(result));
  SP_RETURN_IF_ERROR(CheckGraphs(result));
  return result;
}

int GraphModule::ModuleIndex(absl::string_view fqn) const {
  const auto it = module_index_.find(fqn);
  return it == module_index_.end() ? -1 : it->second;
}

const ModuleNode* GraphModule::FindModule(absl::string_view fqn) const {
  const int index = ModuleIndex(fqn);
  return index == -1 ? nullptr : &modules_[index];
}

const Parameter* GraphModule::FindParameter(absl::string_view fqn) const {
  const auto it = parameter_index_.find(fqn);
  return it == parameter_index_.end() ? nullptr : &parameters_[it->second];
}

const Parameter& GraphModule::Canonical(const Parameter& parameter) const {
  if (parameter.alias_of.empty()) return parameter;
  const Parameter* canonical = FindParameter(parameter.alias_of);
  return canonical == nullptr ? parameter : *canonical;
}

bool IsA(const ModuleNode& module, absl::string_view type) {
  const auto names_it = [type](absl::string_view name) {
    if (name == type) return true;
    const auto [package, bare] = SplitFqn(name);
    return bare == type && (package.empty() || package == "torch.nn" ||
                            absl::StartsWith(package, "torch.nn.modules"));
  };
  if (names_it(module.type)) return true;
  for (const std::string& base : module.bases) {
    if (names_it(base)) return true;
  }
  return false;
}

}  // namespace shardplane
