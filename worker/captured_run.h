// Training runs of one program as one graph of the device: the host starts it
// at once, instead of operator after operator.
#ifndef SHARDPLANE_WORKER_CAPTURED_RUN_H_
#define SHARDPLANE_WORKER_CAPTURED_RUN_H_

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/timeline.h"
#include "worker/collectives.h"
#include "worker/cuda_support.h"
#include "worker/prepared_program.h"

namespace shardplane {

// The first runs are as ever: libraries make ready what they need. Then one is
// captured, and all others are replays. One thread.
class CapturedRun {
 public:
  // `on_capture` is told how each capture went.
  CapturedRun(std::shared_ptr<const PreparedProgram> program,
              MakeDeviceGraph make_graph,
              std::function<void(const absl::Status&)> on_capture)
      : program_(std::move(program)),
        make_graph_(std::move(make_graph)),
        on_capture_(std::move(on_capture)) {}

  // Whether `program` has what a graph can repeat: a loss, and no collectives
  // on this rank.
  static bool Fits(const ShardedProgram& program,
                   absl::Span<const int> coordinate);

  // PreparedProgram::Run of kTrain. Results, as long as holds_results(), are
  // memory that the next call fills again. Parameters may lie elsewhere than in
  // the call before: then it is captured anew. Where capturing fails runs are
  // as ever. Of a replay `timeline` (nullptr: none) has one span, that of the
  // first instruction: until the host has begun all.
  absl::StatusOr<ProgramResult> Run(absl::Span<const at::Tensor> parameters,
                                    absl::Span<const at::Tensor> inputs,
                                    const RandomCounter& random,
                                    Communicator& communicator,
                                    RunTimeline* timeline);

  bool holds_results() const { return graph_ != nullptr; }

 private:
  // Begins a replay.
  void Begin(absl::Span<const at::Tensor> inputs, const RandomCounter& random,
             RunTimeline* timeline);
  void Capture(absl::Span<const at::Tensor> parameters,
               absl::Span<const at::Tensor> inputs, Communicator& communicator);
  bool IsOf(absl::Span<const at::Tensor> parameters) const;
  void Drop();

  const std::shared_ptr<const PreparedProgram> program_;
  const MakeDeviceGraph make_graph_;
  const std::function<void(const absl::Status&)> on_capture_;
  int open_runs_ = 0;
  bool failed_ = false;
  // Of the graph, which ends before the memory that it reads and fills.
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> inputs_;
  at::Tensor random_;  // RandomCounter::words
  ProgramResult result_;
  PreparedProgram::Checks checks_;
  std::unique_ptr<DeviceGraph> graph_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CAPTURED_RUN_H_
