// The gradients of a rank's parameters, and the updates by them.
#ifndef SHARDPLANE_WORKER_GANG_GRADIENTS_H_
#define SHARDPLANE_WORKER_GANG_GRADIENTS_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/optimizer.h"
#include "worker/captured_run.h"
#include "worker/captured_update.h"
#include "worker/collectives.h"
#include "worker/gradients.h"
#include "worker/optimizers.h"
#include "worker/parameters.h"

namespace shardplane {

// Those of the last run, which are pending until they are committed or
// discarded, and those that are committed. Owned by GangTensors, whose methods
// of the same name are Executor's; methods throw what torch throws. One thread.
class GangGradients {
 public:
  // What a run leaves.
  struct Pending {
    NamedTensors gradients;
    NamedProducts products;  // the other gradients
    bool accumulate = false;
    NamedTensors updates;  // of buffers
    // Whose memory the gradients may lie in, which its next run fills; nullptr:
    // nobody's.
    std::shared_ptr<CapturedRun> memory_of;
  };

  // See Optimizers.
  explicit GangGradients(std::unique_ptr<CapturedUpdate> captured)
      : optimizers_(std::move(captured)) {}

  void SetPending(Pending pending) { pending_ = std::move(pending); }
  // Before `captured` fills its memory again: gradients that lie in it.
  void LeaveMemoryOf(const std::shared_ptr<CapturedRun>& captured,
                     bool accumulate);
  // The norm of what a Commit would find; after an error nothing is pending.
  // Errors of GlobalNorm.
  absl::StatusOr<double> Norm(const Parameters& parameters,
                              const DeviceMesh& mesh,
                              absl::Span<const int> coordinate,
                              Communicator& communicator);
  // `locals`, here and below: all parameters and buffers.
  absl::Status CheckCommit(const NamedTensors& locals,
                           const std::optional<OptimizerOptions>& optimizer,
                           std::optional<double> clip_norm);
  absl::Status Commit(const NamedTensors& locals,
                      const std::optional<OptimizerOptions>& optimizer,
                      std::optional<double> clip_norm);
  void Discard();
  // As CapturedRun's, of those that hold gradients.
  void LeaveGroups();
  void ResetOptimizer() { optimizers_.Reset(); }
  // What a Commit would find; else what the last one left. Undefined: no such
  // gradient.
  at::Tensor Find(const std::string& fqn) const;

 private:
  // Adds what there is already to pending gradients that accumulate.
  void MergePending();
  // Whether there are gradients for the norm that clipping needs.
  absl::Status CheckNorm(std::optional<double> clip_norm) const;

  std::optional<Pending> pending_;
  NamedTensors gradients_;
  std::shared_ptr<CapturedRun> memory_of_;  // as Pending's, of gradients_
  NamedProducts products_;                  // the other gradients
  std::optional<double> norm_;              // of what the next Commit finds
  Optimizers optimizers_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_GRADIENTS_H_
