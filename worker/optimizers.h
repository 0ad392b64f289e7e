// Updates of parameters, as torch.optim makes them.
#ifndef SHARDPLANE_WORKER_OPTIMIZERS_H_
#define SHARDPLANE_WORKER_OPTIMIZERS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/optimizer.h"
#include "worker/captured_update.h"
#include "worker/gradients.h"
#include "worker/update_calls.h"

namespace shardplane {

// The optimizer state of one rank's shards. An update is elementwise: shards
// are updated without regard to each other. One thread.
class Optimizers {
 public:
  // With `captured` updates run through it, but for those that it does not
  // take: TakesNumbers. nullptr: all are calls.
  explicit Optimizers(std::unique_ptr<CapturedUpdate> captured = nullptr)
      : captured_(std::move(captured)) {}

  // InvalidArgument: hyperparameters that Validate refuses, a pattern that
  // matches none of the parameters. FailedPrecondition: another kind of
  // optimizer than the state is of.
  absl::Status Check(const OptimizerOptions& options,
                     const NamedTensors& parameters);

  // Updates the parameters that have a gradient, in place. `parameters` are
  // all there are: groups match their names. Throws what torch throws. Errors
  // of Check; nothing is changed then. Hyperparameters may differ each time:
  // what an update with them needs for the first time (momentum, the maximum of
  // amsgrad) starts there. A gradient that is a product is made only where the
  // update needs it: see OnlyAdds. With `clip_scale` none is a product, and the
  // update is by all gradients times that; gradients stay as they are.
  absl::Status Apply(const OptimizerOptions& options,
                     const NamedTensors& parameters,
                     const NamedTensors& gradients,
                     const NamedProducts& products = {},
                     std::optional<double> clip_scale = std::nullopt);
  void Reset();

 private:
  // A shard that gets an update.
  struct Update {
    std::string fqn;
    at::Tensor parameter;
    at::Tensor gradient;
  };
  struct AdamState {
    at::Tensor exp_avg;
    at::Tensor exp_avg_sq;
    at::Tensor max_exp_avg_sq;  // undefined until amsgrad needs it
    int64_t steps = 0;          // updates so far
  };
  struct ProductUpdate {
    at::Tensor parameter;
    const WeightProduct* gradient;
  };
  // Parameters that take the same hyperparameters.
  struct UpdateSet {
    const Hyperparameters* values;
    std::vector<Update> updates;
    std::vector<ProductUpdate> products;  // if the values OnlyAdd
  };

  // Which group each parameter belongs to: the same in most steps.
  struct Assigned {
    std::vector<std::vector<std::string>> patterns;  // by group
    std::vector<std::string> fqns;
    std::vector<int> groups;  // as AssignGroups says
  };

  bool IsAssigned(const OptimizerOptions& options,
                  const NamedTensors& parameters) const;
  absl::Status AssignTo(const OptimizerOptions& options,
                        const NamedTensors& parameters);
  // By the groups that assigned_ tells.
  std::vector<UpdateSet> Collect(const OptimizerOptions& options,
                                 const NamedTensors& parameters,
                                 const NamedTensors& gradients,
                                 const NamedProducts& products) const;
  // Appends the set's batches; makes the state that is missing, counts steps.
  void Prepare(const SgdOptions& options, const std::vector<Update>& updates,
               std::vector<UpdateBatch>& batches);
  void Prepare(const AdamOptions& options, const std::vector<Update>& updates,
               std::vector<UpdateBatch>& batches);
  void Make(std::vector<UpdateBatch>& batches,
            std::optional<double> clip_scale);

  Assigned assigned_;
  std::string kind_;  // of the updates so far; "": none yet
  // A buffer exists from the first update with momentum on.
  NamedTensors momentum_;
  absl::btree_map<std::string, AdamState> adam_;
  const std::unique_ptr<CapturedUpdate> captured_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_OPTIMIZERS_H_
