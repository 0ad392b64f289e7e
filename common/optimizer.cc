#include "common/optimizer.h"

#include <cmath>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status Bad(absl::string_view optimizer, absl::string_view field,
                 absl::string_view rule, absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(optimizer, "'s ", field, " ", rule, "; got: ", got),
      {.reason = "INVALID_OPTIMIZER",
       .metadata = {{"field", std::string(field)},
                    {"optimizer", std::string(optimizer)}}});
}

absl::Status CheckNotNegative(absl::string_view optimizer,
                              absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return Bad(optimizer, field, "must be finite and not negative",
             absl::StrCat(value));
}

struct Checker {
  absl::Status operator()(const SgdOptions& sgd) const {
    SP_RETURN_IF_ERROR(CheckNotNegative("SGD", "lr", sgd.lr));
    SP_RETURN_IF_ERROR(CheckNotNegative("SGD", "momentum", sgd.momentum));
    SP_RETURN_IF_ERROR(
        CheckNotNegative("SGD", "weight_decay", sgd.weight_decay));
    // Negative dampening is odd, but torch takes it.
    if (!std::isfinite(sgd.dampening)) {
      return Bad("SGD", "dampening", "must be finite",
                 absl::StrCat(sgd.dampening));
    }
    if (sgd.nesterov && (sgd.momentum == 0 || sgd.dampening != 0)) {
      return Bad("SGD", "nesterov", "needs a momentum and no dampening",
                 absl::StrCat("momentum ", sgd.momentum, ", dampening ",
                              sgd.dampening));
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status Validate(const OptimizerOptions& options) {
  return std::visit(Checker{}, options);
}

}  // namespace shardplane
