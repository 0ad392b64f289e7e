#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/graph_module.h"
#include "common/initializer.h"

namespace shardplane {
namespace {

using Kind = Initializer::Kind;

struct FixedRow {
  absl::string_view module_type;
  absl::string_view parameter;
  Kind kind;
  double a;
  double b;
};
constexpr FixedRow kFixed[] = {
    {"Embedding", "weight", Kind::kNormal, 0, 1},
    {"LayerNorm", "weight", Kind::kOnes, 0, 0},
    {"LayerNorm", "bias", Kind::kZeros, 0, 0},
    {"RMSNorm", "weight", Kind::kOnes, 0, 0},
    {"GroupNorm", "weight", Kind::kOnes, 0, 0},
    {"GroupNorm", "bias", Kind::kZeros, 0, 0},
};

absl::Status Unknown(const Parameter& parameter, absl::string_view what) {
  return MakeError(
      absl::StatusCode::kUnimplemented,
      absl::StrCat("parameter \"", parameter.fqn,
                   "\" has no data and no initializer, and there is no default "
                   "for it: give it an initializer or upload its data; got: ",
                   what),
      {.reason = "NO_DEFAULT_INITIALIZER",
       .metadata = {{"fqn", parameter.fqn},
                    {"remedy", "give the parameter an initializer or data"}}});
}

// kaiming_uniform with a = sqrt(5), as torch.nn.Linear has it.
absl::StatusOr<Initializer> OfLinear(const GraphModule& module,
                                     const ModuleNode& owner,
                                     const Parameter& parameter) {
  const Parameter* weight = module.FindParameter(JoinFqn(owner.fqn, "weight"));
  if (weight == nullptr || weight->type.shape.size() != 2) {
    return Unknown(parameter, "a Linear without a weight of two dims");
  }
  const int64_t fan_in = weight->type.shape[1];
  const double bound =
      fan_in == 0 ? 0 : 1 / std::sqrt(static_cast<double>(fan_in));
  return Initializer{Kind::kUniform, -bound, bound};
}

// The padding row of an Embedding is zero. A negative one counts from the end.
absl::StatusOr<Initializer> WithPadding(Initializer initializer,
                                        const ModuleNode& owner,
                                        const Parameter& parameter) {
  const auto attribute = owner.attributes.find("padding_idx");
  if (!IsA(owner, "Embedding") || attribute == owner.attributes.end() ||
      attribute->second == Argument{}) {
    return initializer;
  }
  const Shape& shape = parameter.type.shape;
  const int64_t rows = shape.empty() ? 0 : shape[0];
  const auto* padding = std::get_if<int64_t>(&attribute->second.value);
  if (padding == nullptr || *padding < -rows || *padding >= rows) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("parameter \"", parameter.fqn, "\": padding_idx must be ",
                     "one of its ", rows,
                     " rows; got: ", ToString(attribute->second)),
        {.reason = "INVALID_MODULE", .metadata = {{"fqn", parameter.fqn}}});
  }
  initializer.zero_row = *padding < 0 ? *padding + rows : *padding;
  return initializer;
}

}  // namespace

absl::StatusOr<Initializer> DefaultInitializer(const GraphModule& module,
                                               const Parameter& parameter) {
  const auto [owner_fqn, name] = SplitFqn(parameter.fqn);
  const ModuleNode* owner = module.FindModule(owner_fqn);
  if (owner == nullptr) return Unknown(parameter, "no module that owns it");
  if (IsA(*owner, "Linear") && (name == "weight" || name == "bias")) {
    return OfLinear(module, *owner, parameter);
  }
  for (const FixedRow& row : kFixed) {
    if (row.parameter == name && IsA(*owner, row.module_type)) {
      return WithPadding({row.kind, row.a, row.b}, *owner, parameter);
    }
  }
  return Unknown(parameter, absl::StrCat("\"", name, "\" of a module of type ",
                                         owner->type));
}

}  // namespace shardplane
