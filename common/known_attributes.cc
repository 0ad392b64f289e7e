// What attributes the known module types have.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/known_modules.h"

namespace shardplane {
namespace {

enum class Kind { kBool, kInt, kFloat, kString, kSizes, kDType };

struct AttributeRow {
  const char* type;
  const char* name;
  Kind kind;
  Argument otherwise = {};  // torch's default; None: there is none
};

// A function, so that nothing runs before main.
const std::vector<AttributeRow>& Rows() {
  static const auto* const rows = new std::vector<AttributeRow>{
      {"Linear", "in_features", Kind::kInt},
      {"Linear", "out_features", Kind::kInt},
      {"Linear", "bias", Kind::kBool, {true}},
      {"Embedding", "num_embeddings", Kind::kInt},
      {"Embedding", "embedding_dim", Kind::kInt},
      {"Embedding", "padding_idx", Kind::kInt},
      {"Embedding", "max_norm", Kind::kFloat},
      {"LayerNorm", "normalized_shape", Kind::kSizes},
      {"LayerNorm", "eps", Kind::kFloat, {1e-5}},
      {"LayerNorm", "elementwise_affine", Kind::kBool, {true}},
      {"LayerNorm", "bias", Kind::kBool, {true}},
      {"RMSNorm", "normalized_shape", Kind::kSizes},
      {"RMSNorm", "eps", Kind::kFloat},
      {"RMSNorm", "elementwise_affine", Kind::kBool, {true}},
      {"Dropout", "p", Kind::kFloat, {0.5}},
      {"Flatten", "start_dim", Kind::kInt, {int64_t{1}}},
      {"Flatten", "end_dim", Kind::kInt, {int64_t{-1}}},
      {"Unflatten", "dim", Kind::kInt},
      {"Unflatten", "unflattened_size", Kind::kSizes},
      {"Softmax", "dim", Kind::kInt},
      {"LogSoftmax", "dim", Kind::kInt},
      {"GELU", "approximate", Kind::kString, {std::string("none")}},
      {"LeakyReLU", "negative_slope", Kind::kFloat, {0.01}},
      {"ELU", "alpha", Kind::kFloat, {1.0}},
      {"Softplus", "beta", Kind::kFloat, {1.0}},
      {"Softplus", "threshold", Kind::kFloat, {20.0}},
      {"Hardtanh", "min_val", Kind::kFloat, {-1.0}},
      {"Hardtanh", "max_val", Kind::kFloat, {1.0}},
      // Of every type: the dtype of the parameters that it implies, and what
      // torch's activations say about memory, which changes no result.
      {"", "dtype", Kind::kDType},
      {"", "inplace", Kind::kBool},
  };
  return *rows;
}

struct KindRow {
  Kind kind;
  const char* text;
};
constexpr KindRow kKinds[] = {
    {Kind::kBool, "a bool"},
    {Kind::kInt, "an integer"},
    {Kind::kFloat, "a number"},
    {Kind::kString, "a string"},
    {Kind::kSizes, "an integer or a list of integers"},
    {Kind::kDType, "a dtype"},
};

const char* TextOf(Kind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row.text;
  }
  return "";
}

// A list of integers; nullopt if the value is none.
std::optional<Argument> SizesOf(const Argument& value) {
  if (std::holds_alternative<int64_t>(value.value)) {
    return Argument{ArgumentList{value}};
  }
  const auto* list = std::get_if<ArgumentList>(&value.value);
  if (list == nullptr) return std::nullopt;
  for (const Argument& item : *list) {
    if (!std::holds_alternative<int64_t>(item.value)) return std::nullopt;
  }
  return value;
}

template <typename T>
std::optional<Argument> IfIs(const Argument& value) {
  if (!std::holds_alternative<T>(value.value)) return std::nullopt;
  return value;
}

// The value as the kind has it; nullopt if it is of another.
std::optional<Argument> Convert(const Argument& value, Kind kind) {
  switch (kind) {
    case Kind::kBool:
      return IfIs<bool>(value);
    case Kind::kInt:
      return IfIs<int64_t>(value);
    case Kind::kString:
      return IfIs<std::string>(value);
    case Kind::kDType:
      return IfIs<DType>(value);
    case Kind::kSizes:
      return SizesOf(value);
    case Kind::kFloat:
      if (const auto* number = std::get_if<int64_t>(&value.value)) {
        return Argument{static_cast<double>(*number)};
      }
      return IfIs<double>(value);
  }
  return std::nullopt;
}

bool IsOf(const AttributeRow& row, absl::string_view type) {
  return row.type == type || *row.type == '\0';
}

absl::Status Bad(const ModuleNode& module, absl::string_view type,
                 absl::string_view attribute, absl::string_view expected,
                 absl::string_view got) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("module \"", module.fqn, "\" of type ", type,
                                ": ", expected, "; got: ", got),
                   {.reason = "INVALID_MODULE",
                    .metadata = {{"fqn", module.fqn},
                                 {"attribute", std::string(attribute)}}});
}

}  // namespace

std::vector<std::string> KnownAttributeNames(absl::string_view type) {
  std::vector<std::string> names;
  for (const AttributeRow& row : Rows()) {
    if (IsOf(row, type)) names.push_back(row.name);
  }
  return names;
}

absl::StatusOr<KnownAttributes> KnownAttributes::Create(
    const ModuleNode& module, absl::string_view type) {
  KnownAttributes attributes;
  size_t found = 0;
  for (const AttributeRow& row : Rows()) {
    if (!IsOf(row, type)) continue;
    Value& value = attributes.values_[row.name];
    value.value = row.otherwise;
    const auto it = module.attributes.find(row.name);
    if (it == module.attributes.end()) continue;
    ++found;
    if (it->second == Argument{}) continue;
    std::optional<Argument> converted = Convert(it->second, row.kind);
    if (!converted.has_value()) {
      return Bad(module, type, row.name,
                 absl::StrCat("attribute \"", row.name, "\" must be ",
                              TextOf(row.kind)),
                 ToString(it->second));
    }
    value = {*std::move(converted), true};
  }
  if (found == module.attributes.size()) return attributes;
  for (const auto& [name, value] : module.attributes) {
    if (attributes.values_.contains(name)) continue;
    return Bad(module, type, name,
               absl::StrCat("its attributes are ",
                            absl::StrJoin(KnownAttributeNames(type), ", ")),
               absl::StrCat(name, "=", ToString(value)));
  }
  return attributes;
}

const Argument& KnownAttributes::Get(absl::string_view name) const {
  static const auto* const none = new Argument;
  const auto it = values_.find(name);
  return it == values_.end() ? *none : it->second.value;
}

bool KnownAttributes::IsTrue(absl::string_view name) const {
  return Get(name) == Argument{true};
}

bool KnownAttributes::IsGiven(absl::string_view name) const {
  const auto it = values_.find(name);
  return it != values_.end() && it->second.given;
}

}  // namespace shardplane
