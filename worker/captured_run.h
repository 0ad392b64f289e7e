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

// The first runs are as ever: libraries make ready what they need. Once two
// have been committed the next is captured, and all others are replays. A run
// is committed on all ranks or on none, so that ranks capture the same one, as
// collectives need it. One thread.
class CapturedRun {
 public:
  // `on_capture` is told how each capture went.
  CapturedRun(std::shared_ptr<const PreparedProgram> program,
              absl::Span<const int> coordinate, MakeDeviceGraph make_graph,
              std::function<void(const absl::Status&)> on_capture);

  // Whether `program` has what a graph can repeat: a loss.
  static bool Fits(const ShardedProgram& program) { return program.loss >= 0; }

  // PreparedProgram::Run of kTrain. Results, as long as holds_results(), are
  // memory that the next call fills again. Parameters may lie elsewhere than in
  // the call before: then it is captured anew. Where capturing fails, on any
  // rank, runs are as ever; so are those with collectives that `communicator`
  // may not record. Of a replay `timeline` (nullptr: none) has one span, that
  // of the first instruction: until the host has begun all.
  absl::StatusOr<ProgramResult> Run(absl::Span<const at::Tensor> parameters,
                                    absl::Span<const at::Tensor> inputs,
                                    const RandomCounter& random,
                                    Communicator& communicator,
                                    RunTimeline* timeline);

  bool holds_results() const { return graph_ != nullptr; }

  // The last Run has been committed.
  void CountCommitted() { ++committed_; }
  // Before the groups end whose collectives a graph may have: it ends first,
  // and all begins anew.
  void LeaveGroups();

 private:
  bool MayCapture(const Communicator& communicator) const;
  // Begins a replay.
  absl::Status Begin(absl::Span<const at::Tensor> inputs,
                     const RandomCounter& random, Communicator& communicator,
                     RunTimeline* timeline);
  // Errors: another rank is gone.
  absl::Status Capture(absl::Span<const at::Tensor> parameters,
                       absl::Span<const at::Tensor> inputs,
                       Communicator& communicator);
  absl::Status Record(DeviceGraph& graph, Communicator& communicator);
  bool IsOf(absl::Span<const at::Tensor> parameters) const;
  void Drop();

  const std::shared_ptr<const PreparedProgram> program_;
  const MakeDeviceGraph make_graph_;
  const std::function<void(const absl::Status&)> on_capture_;
  const bool communicates_;
  int committed_ = 0;
  bool failed_ = false;
  // Of the graph, which ends before the memory that it reads and fills.
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> inputs_;
  at::Tensor random_;  // RandomCounter::words
  ProgramResult result_;
  PreparedProgram::Checks checks_;
  Communicator::Recorded recorded_;
  std::unique_ptr<DeviceGraph> graph_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CAPTURED_RUN_H_
