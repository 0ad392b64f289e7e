// What a worker does with the coordinator's calls: fence them, run each once,
// in order, on the executor's thread. Free of torch and gRPC.
#ifndef SHARDPLANE_WORKER_GANG_WORKER_H_
#define SHARDPLANE_WORKER_GANG_WORKER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/host_tensor.h"
#include "common/optimizer.h"
#include "common/sharded_program.h"
#include "telemetry/metrics.h"
#include "worker/executor.h"
#include "worker/executor_thread.h"
#include "worker/gang_fence.h"
#include "worker/nvtx_range.h"
#include "worker/step_profiler.h"
#include "worker/step_timelines.h"
#include "worker/transport.h"

namespace shardplane {

struct GangRun {
  uint64_t step = 0;        // 0: a forward without a number
  std::string traceparent;  // of the client's call (W3C); or ""
  RunSpec spec;
  // Inputs that came with the call; spec.inputs names their keys.
  std::vector<std::pair<std::string, HostTensor>> inline_inputs;
  uint64_t expected_hash = 0;
};

struct GangCommit {
  uint64_t step = 0;
  std::optional<OptimizerOptions> optimizer;
  std::optional<double> clip_norm;
  std::optional<LoadStateSpec> load_state;
  bool reset_optimizer = false;
  bool abandon = false;  // discards what is pending instead
};

// One training step: a run, and what becomes of it.
struct GangStep {
  GangRun run;        // numbered, kTrain
  GangCommit commit;  // an update; its number is not read
};

struct StepOutcome {
  RunResult run;              // its counts have the agreement's, phase "commit"
  double commit_seconds = 0;  // agreement and update
};
using StepDone = absl::AnyInvocable<void(absl::StatusOr<StepOutcome>)>;

// Every call is checked when it comes and again when its turn comes, so that
// what waited behind a new gang's join is refused. All calls: Aborted,
// FailedPrecondition as GangFence says; else what the Executor answers.
// Thread-safe; calls block, except Step and Abort.
class GangWorker {
 public:
  // Borrows all; `metrics`, and what steps are shown to, may be null.
  GangWorker(uint64_t incarnation, Executor* executor, Metrics* metrics,
             const NvtxDomain* nvtx = nullptr,
             StepProfiler* profiler = nullptr);

  // The same epoch again gets the first answer. A newer epoch ends what the
  // older gang still runs. Unavailable while the worker drains.
  absl::Status Join(const GangCall& call, const GangSpec& spec,
                    std::shared_ptr<GangStore> store);
  absl::Status Leave(const GangCall& call);
  absl::Status Stage(const GangCall& call, const std::string& key,
                     HostTensor tensor);
  // Again, with the same request id: the first answer.
  absl::StatusOr<RanCollectives> Materialize(const GangCall& call,
                                             const MaterializeSpec& spec);
  absl::Status LoadProgram(const GangCall& call, const std::string& id,
                           const ShardedProgram& program);
  // Internal, reason COLLECTIVES_DIFFER, and nothing is pending: what ran is
  // not what the program says. The same request id again gets the first
  // answer. Aborted: a step that is committed already.
  absl::StatusOr<RunResult> Run(const GangCall& call, GangRun run);
  // Runs a step, agrees with all ranks that each has run it as its program
  // says and can commit it, and commits it everywhere or nowhere. Returns at
  // once; `done` is called on the executor's thread, in the order in which
  // steps came. A `step` that is an error is answered with it, in its turn.
  // Answers: the recorded one, for the last committed number with the same
  // request id; Aborted, reason STEP_OUT_OF_TURN: any other number than the
  // next. As Run and Commit: what this rank has against the step.
  // FailedPrecondition, reason PEER_FAILED: only others have something against
  // it. Unavailable: a peer is gone, and the gang broken.
  void Step(GangCall call, absl::StatusOr<GangStep> step, StepDone done);
  // A step that is committed already: OK, and nothing happens.
  absl::Status Commit(const GangCall& call, const GangCommit& commit);
  absl::StatusOr<ShardedTensor> Read(const GangCall& call,
                                     const TensorKey& key);
  absl::Status Abort(const GangCall& call, absl::string_view reason);
  // How far this gang's Materialize has come: bytes done, bytes in all. Does
  // not wait for its turn.
  absl::StatusOr<std::pair<int64_t, int64_t>> Progress(
      const GangCall& call) const;
  // Of a training step of this gang; as StepTimelines::Find. Does not wait.
  absl::StatusOr<StepTimeline> Timeline(const GangCall& call,
                                        uint64_t step) const;

  // From now on no gang is joined. Waits for the call that runs.
  void Drain();
  // Ends a running collective, for a process that must go now.
  void AbortAll(absl::string_view reason);

  bool in_gang() const;

 private:
  // The last answer to a call that must not run twice.
  template <typename T>
  struct Answer {
    std::string request_id;
    std::optional<absl::StatusOr<T>> result;
  };

  struct CommittedStep {
    uint64_t step = 0;
    std::string request_id;
    StepOutcome outcome;
  };

  // Runs `function` in turn if the call still reaches the gang.
  template <typename Function>
  std::invoke_result_t<Function> InTurn(const GangCall& call,
                                        Function function);
  // The same, but answers a request id that it knows from memory.
  template <typename T, typename Function>
  absl::StatusOr<T> Once(const GangCall& call, Answer<T>& answer,
                         Function function);
  // Whether a call reaches the gang; in its turn, whether that was formed.
  absl::Status Check(const GangCall& call) const;
  absl::Status CheckInTurn(const GangCall& call) const;
  // Runs, and compares the hash; nothing is pending after an error.
  absl::StatusOr<RunResult> RunChecked(GangRun& run);
  absl::StatusOr<RunResult> RunNow(GangRun run);
  absl::StatusOr<StepOutcome> StepInTurn(const GangCall& call,
                                         absl::StatusOr<GangStep> step,
                                         int64_t received);
  absl::StatusOr<StepOutcome> StepNow(GangStep& step, int64_t received);
  // What keeps a step that has `ran` from being committed; adds to its counts.
  absl::Status Agree(const GangStep& step, absl::StatusOr<RunResult>& ran);
  absl::Status CommitNow(const GangCommit& commit);
  void Count(const GangRun& run, const absl::StatusOr<RunResult>& result);
  void CountMaterialize(const RanCollectives& ran, double seconds);
  void Count(const RanCollectives& ran);

  Executor* const executor_;
  Metrics* const metrics_;
  const NvtxDomain* const nvtx_;
  StepProfiler* const profiler_;

  mutable absl::Mutex mutex_;
  GangFence fence_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<GangStore> store_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;

  // The rest belongs to the executor's thread.
  std::optional<absl::Status> joined_;  // the answer to this epoch's join
  Answer<RunResult> last_run_;
  Answer<RanCollectives> last_materialize_;
  uint64_t committed_step_ = 0;
  CommittedStep last_step_;  // by Step

  // Written on the executor's thread, read on any.
  MaterializeProgress progress_;
  StepTimelines timelines_;

  ExecutorThread thread_;  // last: ends before what it uses
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_WORKER_H_
