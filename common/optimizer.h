// Optimizers as values: the hyperparameters of one update.
#ifndef SHARDPLANE_COMMON_OPTIMIZER_H_
#define SHARDPLANE_COMMON_OPTIMIZER_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shardplane {

// As torch.optim.SGD.
struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
  friend bool operator==(const SgdOptions&, const SgdOptions&) = default;
};

enum class AdamKind {
  kAdam,   // weight decay is a part of the gradient
  kAdamW,  // weight decay shrinks the parameter by itself
};

// As torch.optim.Adam and AdamW.
struct AdamOptions {
  AdamKind kind = AdamKind::kAdam;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  bool amsgrad = false;
  bool maximize = false;
  friend bool operator==(const AdamOptions&, const AdamOptions&) = default;
};

using Hyperparameters = std::variant<SgdOptions, AdamOptions>;
// "SGD", "Adam", "AdamW".
std::string KindName(const Hyperparameters& values);

// Parameters that take values of their own.
struct ParameterGroup {
  // Globs on FQNs, token by token as in a plan.
  std::vector<std::string> patterns;
  Hyperparameters values;  // of the optimizer's kind
  friend bool operator==(const ParameterGroup&,
                         const ParameterGroup&) = default;
};

struct OptimizerOptions {
  Hyperparameters values;              // where no group has other ones
  std::vector<ParameterGroup> groups;  // the first that matches counts
  friend bool operator==(const OptimizerOptions&,
                         const OptimizerOptions&) = default;
};

// Whether an update only adds a multiple of the gradient to what it makes of
// the parameter alone: SGD without momentum.
bool OnlyAdds(const Hyperparameters& values);
// The same of all parameters.
bool OnlyAdds(const OptimizerOptions& options);

// InvalidArgument, naming the field ("sgd.lr", "groups[1].adam.beta1"):
// hyperparameters that torch.optim refuses, a group of another kind or without
// a pattern.
absl::Status Validate(const OptimizerOptions& options);

// Optimizer state is of one kind until it is reset. FailedPrecondition: the
// state is of another `kind` (a KindName; "" while there is none).
absl::Status CheckKind(const OptimizerOptions& options, absl::string_view kind);

// The group that each parameter belongs to, in the order of `fqns`: an index
// in options.groups, or -1 for none. InvalidArgument, with a suggestion: a
// pattern that matches no parameter. Cases, on [norm.weight, up.bias,
// up.weight]:
//   {"norm.*"} -> [0, -1, -1];  {"*.bias", "up.*"} -> [-1, 0, 0]
//   {"*.bias"}, {"up.*"} -> [-1, 0, 1]
//   {"up"} -> "did you mean 'up.*'?";  {"nrm.*"} -> "did you mean 'norm.*'?"
absl::StatusOr<std::vector<int>> AssignGroups(
    const OptimizerOptions& options, absl::Span<const std::string> fqns);

// What the parameters of that group take; of -1: of no group.
const Hyperparameters& ValuesOf(const OptimizerOptions& options, int group);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OPTIMIZER_H_
