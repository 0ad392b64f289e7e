// What parameters the known module types have.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/known_modules.h"

namespace shardplane {
namespace {

struct ParameterRow {
  const char* type;
  const char* name;
  // Attributes whose values, joined, are the shape.
  std::vector<const char*> sizes;
  // Attributes that must be true for the module to have it.
  std::vector<const char*> conditions = {};
};

const std::vector<ParameterRow>& Rows() {
  static const auto* const rows = new std::vector<ParameterRow>{
      {"Linear", "weight", {"out_features", "in_features"}},
      {"Linear", "bias", {"out_features"}, {"bias"}},
      {"Embedding", "weight", {"num_embeddings", "embedding_dim"}},
      {"LayerNorm", "weight", {"normalized_shape"}, {"elementwise_affine"}},
      {"LayerNorm",
       "bias",
       {"normalized_shape"},
       {"elementwise_affine", "bias"}},
      {"RMSNorm", "weight", {"normalized_shape"}, {"elementwise_affine"}},
  };
  return *rows;
}

absl::Status Bad(absl::string_view fqn, absl::string_view message,
                 absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, absl::StrCat(message, "; got: ", got),
      {.reason = "INVALID_MODULE", .metadata = {{"fqn", std::string(fqn)}}});
}

// One module of a known type, and what it lists.
class Owner {
 public:
  Owner(const ModuleNode& module, absl::string_view type,
        KnownAttributes attributes)
      : module_(module), type_(type), attributes_(std::move(attributes)) {}

  // The parameters that the attributes imply; none if they say no size.
  absl::StatusOr<std::vector<Parameter>> Implied() const {
    std::vector<Parameter> parameters;
    for (const ParameterRow& row : Rows()) {
      if (row.type != type_ || !Has(row)) continue;
      SP_ASSIGN_OR_RETURN(std::optional<Shape> shape, ShapeOf(row));
      if (!shape.has_value()) continue;
      parameters.push_back({.fqn = JoinFqn(module_.fqn, row.name),
                            .type = {DTypeOf(), *std::move(shape)}});
    }
    return parameters;
  }

  // `names`: of the parameters that the module lists, at least one of them.
  absl::Status CheckConditions(const std::vector<std::string>& names) const {
    for (const ParameterRow& row : Rows()) {
      if (row.type != type_) continue;
      const bool listed =
          std::find(names.begin(), names.end(), row.name) != names.end();
      for (const char* condition : row.conditions) {
        if (!attributes_.IsGiven(condition)) continue;
        const bool wanted = attributes_.IsTrue(condition);
        if (wanted == listed || (wanted && !Has(row))) continue;
        return Bad(
            JoinFqn(module_.fqn, row.name),
            absl::StrCat("module \"", module_.fqn, "\" of type ", type_,
                         " must list its parameter \"", row.name,
                         "\" if it lists any and has ", condition, "=true"),
            absl::StrCat(condition, "=", wanted ? "true" : "false",
                         " and the parameters ", absl::StrJoin(names, ", ")));
      }
    }
    return absl::OkStatus();
  }

 private:
  bool Has(const ParameterRow& row) const {
    return std::all_of(
        row.conditions.begin(), row.conditions.end(),
        [this](const char* name) { return attributes_.IsTrue(name); });
  }

  DType DTypeOf() const {
    const auto* dtype = std::get_if<DType>(&attributes_.Get("dtype").value);
    return dtype == nullptr ? DType::kFloat32 : *dtype;
  }

  // nullopt: the attributes say no size at all.
  absl::StatusOr<std::optional<Shape>> ShapeOf(const ParameterRow& row) const {
    Shape shape;
    std::vector<const char*> missing;
    for (const char* name : row.sizes) {
      if (!attributes_.IsGiven(name)) {
        missing.push_back(name);
        continue;
      }
      SP_RETURN_IF_ERROR(Append(name, &shape));
    }
    if (missing.empty()) return std::optional<Shape>(std::move(shape));
    if (missing.size() == row.sizes.size()) return std::optional<Shape>();
    return Bad(module_.fqn,
               absl::StrCat("module \"", module_.fqn, "\" of type ", type_,
                            " needs its attributes ",
                            absl::StrJoin(row.sizes, ", "), " together"),
               absl::StrCat("no ", absl::StrJoin(missing, ", ")));
  }

  absl::Status Append(const char* name, Shape* shape) const {
    const Argument& value = attributes_.Get(name);
    ArgumentList items = {value};
    if (const auto* list = std::get_if<ArgumentList>(&value.value)) {
      items = *list;
    }
    for (const Argument& item : items) {
      shape->push_back(std::get<int64_t>(item.value));
      if (shape->back() >= 0) continue;
      return Bad(
          module_.fqn,
          absl::StrCat("module \"", module_.fqn, "\" of type ", type_,
                       ": attribute \"", name, "\" must not be negative"),
          ToString(value));
    }
    return absl::OkStatus();
  }

  const ModuleNode& module_;
  const absl::string_view type_;
  const KnownAttributes attributes_;
};

// Adds what a description leaves out.
class Completer {
 public:
  Completer(const std::vector<ModuleNode>& modules,
            std::vector<ListedParameter> listed)
      : modules_(modules), listed_(std::move(listed)) {
    for (size_t i = 0; i < listed_.size(); ++i) {
      const Parameter& parameter = listed_[i].parameter;
      listed_of_[SplitFqn(parameter.fqn).first].push_back(i);
      index_.emplace(parameter.fqn, i);
    }
  }

  absl::StatusOr<std::vector<CompletedParameter>> Run() && {
    for (const ModuleNode& module : modules_) {
      SP_RETURN_IF_ERROR(Visit(module));
    }
    for (ListedParameter& listed : listed_) {
      if (listed.parameter.alias_of.empty()) Complete(&listed);
    }
    for (ListedParameter& listed : listed_) {
      if (!listed.parameter.alias_of.empty()) Complete(&listed);
    }
    for (const ListedParameter& listed : listed_) {
      SP_RETURN_IF_ERROR(Check(listed));
    }
    return Merged();
  }

 private:
  absl::Status Visit(const ModuleNode& module) {
    const absl::string_view type =
        module.graph.has_value() ? "" : KnownType(module);
    if (type.empty()) return absl::OkStatus();
    SP_ASSIGN_OR_RETURN(KnownAttributes attributes,
                        KnownAttributes::Create(module, type));
    const Owner owner(module, type, std::move(attributes));
    SP_ASSIGN_OR_RETURN(std::vector<Parameter> implied, owner.Implied());
    const auto mine = listed_of_.find(module.fqn);
    if (mine == listed_of_.end()) {
      if (!implied.empty()) implied_[module.fqn] = std::move(implied);
      return absl::OkStatus();
    }
    std::vector<std::string> names;
    for (const size_t i : mine->second) {
      names.push_back(SplitFqn(listed_[i].parameter.fqn).second);
    }
    for (const Parameter& parameter : implied) {
      said_.emplace(parameter.fqn, parameter.type);
    }
    return owner.CheckConditions(names);
  }

  // Fills in a type that the description leaves out, where something says it.
  void Complete(ListedParameter* listed) const {
    if (listed->has_type) return;
    Parameter& parameter = listed->parameter;
    if (const Parameter* first = Find(parameter.alias_of)) {
      parameter.type = first->type;
      listed->has_type = true;
    } else if (const auto it = said_.find(parameter.fqn); it != said_.end()) {
      parameter.type = it->second;
      listed->has_type = true;
    }
  }

  absl::Status Check(const ListedParameter& listed) const {
    const Parameter& parameter = listed.parameter;
    if (!listed.has_type) {
      return Bad(parameter.fqn,
                 absl::StrCat("parameter \"", parameter.fqn,
                              "\" needs a type: neither its module's "
                              "attributes nor an alias say one"),
                 "none");
    }
    const auto said = said_.find(parameter.fqn);
    if (said == said_.end() || said->second.shape == parameter.type.shape) {
      return absl::OkStatus();
    }
    return Bad(parameter.fqn,
               absl::StrCat("parameter \"", parameter.fqn,
                            "\" must have the shape that its module's "
                            "attributes say, ",
                            ShapeToString(said->second.shape)),
               ShapeToString(parameter.type.shape));
  }

  // A parameter that has a type, listed or implied.
  const Parameter* Find(const std::string& fqn) const {
    if (const auto it = index_.find(fqn); it != index_.end()) {
      const ListedParameter& found = listed_[it->second];
      return found.has_type ? &found.parameter : nullptr;
    }
    const auto it = implied_.find(SplitFqn(fqn).first);
    if (it == implied_.end()) return nullptr;
    for (const Parameter& parameter : it->second) {
      if (parameter.fqn == fqn) return &parameter;
    }
    return nullptr;
  }

  std::vector<CompletedParameter> Merged() {
    std::vector<CompletedParameter> merged;
    const auto add_listed = [&](size_t i) {
      merged.push_back({std::move(listed_[i].parameter), static_cast<int>(i)});
    };
    if (implied_.empty()) {
      for (size_t i = 0; i < listed_.size(); ++i) add_listed(i);
      return merged;
    }
    std::vector<bool> placed(listed_.size());
    for (const ModuleNode& module : modules_) {
      for (const size_t i : listed_of_[module.fqn]) {
        if (!placed[i]) add_listed(i);
        placed[i] = true;
      }
      for (Parameter& parameter : implied_[module.fqn]) {
        merged.push_back({std::move(parameter)});
      }
    }
    for (size_t i = 0; i < listed_.size(); ++i) {
      if (!placed[i]) add_listed(i);  // of no module: Create says so
    }
    return merged;
  }

  const std::vector<ModuleNode>& modules_;
  std::vector<ListedParameter> listed_;
  absl::btree_map<std::string, std::vector<size_t>> listed_of_;  // by module
  absl::btree_map<std::string, size_t> index_;
  absl::btree_map<std::string, std::vector<Parameter>> implied_;  // by module
  // Of modules that list theirs: what the attributes say, by parameter.
  absl::btree_map<std::string, TensorType> said_;
};

}  // namespace

absl::StatusOr<std::vector<CompletedParameter>> CompleteParameters(
    const std::vector<ModuleNode>& modules,
    std::vector<ListedParameter> listed) {
  return Completer(modules, std::move(listed)).Run();
}

}  // namespace shardplane
