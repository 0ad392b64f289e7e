// Updates of parameters as one graph of the device.
#ifndef SHARDPLANE_WORKER_CAPTURED_UPDATE_H_
#define SHARDPLANE_WORKER_CAPTURED_UPDATE_H_

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/cuda_support.h"
#include "worker/update_calls.h"

namespace shardplane {

// An update that is the third in a row of one UpdateIdentity is captured, and
// those that follow are replays. What changes from step to step (lr, the steps
// so far, the scale of clipping) is read from the device's memory, by updates
// that are calls too: when one is captured changes no bit. An update of another
// identity is calls, and the graph waits for its own to come again. It keeps
// none of the tensors that it reads and writes: it runs only where those of the
// update at hand lie there. One thread.
class CapturedUpdate {
 public:
  // `on_capture` is told how each capture went, and last, where updates are
  // never captured again, why.
  CapturedUpdate(MakeDeviceGraph make_graph,
                 std::function<void(const absl::Status&)> on_capture)
      : make_graph_(std::move(make_graph)),
        on_capture_(std::move(on_capture)) {}

  // CallKernels; TakesNumbers of all batches. Throws what torch throws. Where
  // capturing fails updates are calls from then on.
  void Run(absl::Span<const UpdateBatch> batches,
           std::optional<double> clip_scale);

 private:
  struct Captured {
    UpdateIdentity identity;
    UpdateNumbers numbers;
    std::unique_ptr<DeviceGraph> graph;
  };

  bool Fits(const UpdateIdentity& identity) const {
    return captured_.has_value() && captured_->identity == identity;
  }
  // Counts an update of that identity. Whether it shall be captured.
  bool Counted(const UpdateIdentity& identity);
  void Capture(absl::Span<const UpdateBatch> batches, UpdateIdentity identity,
               bool clips);
  void GiveUp(const absl::Status& why);

  const MakeDeviceGraph make_graph_;
  const std::function<void(const absl::Status&)> on_capture_;
  UpdateIdentity last_;  // of the update before
  int in_a_row_ = 0;     // updates of that identity
  int captures_ = 0;
  bool given_up_ = false;
  std::optional<Captured> captured_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CAPTURED_UPDATE_H_
