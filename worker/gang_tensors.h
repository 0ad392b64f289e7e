// Everything that a rank holds for its deployment besides connections.
#ifndef SHARDPLANE_WORKER_GANG_TENSORS_H_
#define SHARDPLANE_WORKER_GANG_TENSORS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/captured_run.h"
#include "worker/captured_update.h"
#include "worker/collectives.h"
#include "worker/cuda_support.h"
#include "worker/executor.h"
#include "worker/gang_gradients.h"
#include "worker/gradients.h"
#include "worker/nvtx_range.h"
#include "worker/parameters.h"
#include "worker/prepared_program.h"
#include "worker/tensor_memory.h"

namespace shardplane {

// The state behind an Executor: parameters, programs, staged tensors,
// gradients, optimizer state, what the last run left. Methods mean what
// Executor's say; they throw what torch throws. One thread.
class GangTensors {
 public:
  // With `make` training runs that CapturedRun fits and updates become graphs;
  // `on_capture` is told what ("p: steps", of program p; "updates") and how it
  // went.
  struct Graphs {
    MakeDeviceGraph make;
    std::function<void(const std::string&, const absl::Status&)> on_capture;
  };
  // Borrows `nvtx`, where runs are shown; null: nowhere. `weights_root`: see
  // WeightFiles.
  GangTensors(const GangSpec& spec, c10::Device device, Graphs graphs = {},
              NvtxDomain* nvtx = nullptr, std::string weights_root = "");

  absl::Status Stage(const std::string& key, HostTensor tensor);
  absl::StatusOr<RanCollectives> Materialize(const MaterializeSpec& spec,
                                             Communicator& communicator,
                                             MaterializeProgress* progress);
  absl::Status LoadProgram(const std::string& id,
                           const ShardedProgram& program);
  absl::StatusOr<RunResult> Run(const RunSpec& spec,
                                Communicator& communicator);
  // Before the process groups end, or once they are of no more use: ends what
  // holds on to them.
  void LeaveGroups();
  absl::Status CheckCommit(const std::optional<OptimizerOptions>& optimizer,
                           std::optional<double> clip_norm);
  absl::StatusOr<Agreement> Agree(Verdict verdict, Communicator& communicator);
  absl::Status Commit(const std::optional<OptimizerOptions>& optimizer,
                      std::optional<double> clip_norm);
  absl::Status Discard();
  absl::Status LoadState(const LoadStateSpec& spec);
  absl::Status ResetOptimizer();
  absl::StatusOr<ShardedTensor> Read(const TensorKey& key) const;

 private:
  struct LoadedProgram {
    // Shared with the last run, which outlives a program that is replaced.
    std::shared_ptr<const PreparedProgram> prepared;
    int64_t forward_collectives = 0;
    int64_t train_collectives = 0;          // backward's too
    std::shared_ptr<CapturedRun> captured;  // of training; nullptr: never
    int64_t captured_peak = 0;              // see PeakOf
  };

  static absl::Status NotThere(absl::string_view what, absl::string_view got,
                               absl::string_view reason = "NOT_FOUND");
  std::unique_ptr<CapturedUpdate> MakeCapturedUpdate();  // nullptr: no graphs
  absl::StatusOr<RunResult> RunAll(const RunSpec& spec,
                                   Communicator& communicator);
  // How many collectives a run has on every rank; -1: no such program.
  int64_t CollectivesOf(const RunSpec& spec) const;
  absl::StatusOr<RunResult> RunProgram(const RunSpec& spec,
                                       Communicator& communicator);
  absl::StatusOr<ProgramResult> RunLoaded(
      const RunSpec& spec, const LoadedProgram& loaded,
      absl::Span<const at::Tensor> parameters,
      absl::Span<const at::Tensor> inputs, Communicator& communicator,
      RunTimeline* timeline);
  static bool MayBeCaptured(const RunSpec& spec, const LoadedProgram& loaded);
  // Bytes of a run that has taken `measured`: replays ask for no memory, and
  // take what the run that was captured did.
  static int64_t PeakOf(const RunSpec& spec, int64_t measured,
                        LoadedProgram& loaded);
  // The norm of what a Commit would find, into `result`.
  absl::Status AddNorm(Communicator& communicator, RunResult& result);
  absl::StatusOr<HostTensor> TakeStaged(const std::string& key);
  absl::StatusOr<std::vector<at::Tensor>> TakeInputs(
      const RunSpec& spec, const PreparedProgram& program);
  absl::StatusOr<std::vector<at::Tensor>> ParametersOf(
      const PreparedProgram& program) const;
  absl::StatusOr<ShardedTensor> ReadOne(const ParameterKey& key) const;
  absl::StatusOr<ShardedTensor> ReadOne(const GradientKey& key) const;
  absl::StatusOr<ShardedTensor> ReadOne(const OutputKey& key) const;
  absl::StatusOr<ShardedTensor> ReadOne(const InputGradientKey& key) const;
  ShardedTensor ValueOf(const at::Tensor& tensor, ValueId id) const;

  // The first member: the others have given up their tensors when it ends.
  const struct ReleaseMemory {
    ~ReleaseMemory() { ReleaseTensorMemory(); }
  } release_memory_;
  GangSpec spec_;
  c10::Device device_;
  const Graphs graphs_;
  NvtxDomain* nvtx_;
  const std::string weights_root_;
  std::vector<int> coordinate_;
  bool materialized_ = false;
  uint64_t seed_ = 0;  // of the deployment
  Parameters parameters_;
  NamedTensors locals_;  // of parameters_
  absl::btree_map<std::string, HostTensor> staged_;
  absl::btree_map<std::string, LoadedProgram> programs_;
  std::shared_ptr<const PreparedProgram> last_program_;
  ProgramResult last_;
  // Of Communicator::completed(), once the last run has had all its
  // collectives; -1: none has begun, or nobody knows.
  int64_t run_ends_at_ = -1;
  GangGradients gradients_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_TENSORS_H_
