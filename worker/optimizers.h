// Updates of parameters, as torch.optim makes them.
#ifndef SHARDPLANE_WORKER_OPTIMIZERS_H_
#define SHARDPLANE_WORKER_OPTIMIZERS_H_

#include <string>

#include "ATen/core/Tensor.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "common/optimizer.h"

namespace shardplane {

// The optimizer state of one rank's shards. An update is elementwise: shards
// are updated without regard to each other.
class Optimizers {
 public:
  using NamedTensors = absl::btree_map<std::string, at::Tensor>;

  // Updates the parameters that have a gradient, in place. Throws what torch
  // throws. InvalidArgument: hyperparameters that Validate refuses.
  absl::Status Apply(const OptimizerOptions& options,
                     const NamedTensors& parameters,
                     const NamedTensors& gradients);
  void Reset() { momentum_.clear(); }

 private:
  void ApplyKind(const SgdOptions& options, const NamedTensors& parameters,
                 const NamedTensors& gradients);

  // A buffer exists from the first update with momentum on.
  NamedTensors momentum_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_OPTIMIZERS_H_
