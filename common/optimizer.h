// Optimizers as values: the hyperparameters of one update.
#ifndef SHARDPLANE_COMMON_OPTIMIZER_H_
#define SHARDPLANE_COMMON_OPTIMIZER_H_

#include <variant>

#include "absl/status/status.h"

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

using OptimizerOptions = std::variant<SgdOptions>;

// InvalidArgument, naming the field: a negative or non-finite lr, momentum or
// weight decay; nesterov without momentum or with dampening.
absl::Status Validate(const OptimizerOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OPTIMIZER_H_
