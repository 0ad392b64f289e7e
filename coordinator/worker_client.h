// What the coordinator asks of one worker.
#ifndef SHARDPLANE_COORDINATOR_WORKER_CLIENT_H_
#define SHARDPLANE_COORDINATOR_WORKER_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/host_tensor.h"
#include "common/optimizer.h"
#include "common/report.h"
#include "common/sharded_program.h"
#include "common/timeline.h"
#include "coordinator/cancellation.h"
#include "coordinator/ids.h"
#include "ipc/shared_bytes.h"
#include "proto/convert/types.h"

namespace shardplane {

// Which gang, and which life of the worker's process, a call is meant for.
struct GangRef {
  DeploymentId deployment;
  GangEpoch epoch;
  Incarnation incarnation;
  std::string request_id;
};

struct CallOptions {
  absl::Duration timeout = absl::Seconds(30);
  Cancellation* cancellation = nullptr;  // outlives the call
  std::string traceparent = {};          // W3C trace context; "": none
};

struct JoinGangCall {
  int rank = 0;
  DeviceMesh mesh;
  std::string rendezvous;  // host:port; "": the coordinator that it knows
  absl::Duration timeout;  // of forming, and of every collective
};

struct MaterializeCall {
  struct Source {
    std::string fqn;
    TensorType type;
    DTensorSpec spec;
    bool requires_grad = false;
    std::optional<Initializer> initializer;  // else staged data
  };
  std::vector<Source> parameters;
  int plan_mesh_dim = 0;
  std::optional<int> src_data_rank;
  uint64_t seed = 0;
};

// kNorm: no program, the norm of the gradients that there are.
enum class RunMode { kForward, kTrain, kNorm };

struct RunCall {
  StepNumber step;  // 0: a forward without a number
  ProgramId program;
  RunMode mode = RunMode::kForward;
  std::vector<TensorSource> inputs;  // then targets
  bool accumulate = false;
  StepNumber random_step;      // that random masks are drawn for
  bool gradient_norm = false;  // of what Commit will find; always with kNorm
  uint64_t expected_hash = 0;
  bool timeline = false;
  std::string traceparent = {};  // of a step; "": none
};
struct RunOutcome {
  std::vector<CollectiveCount> collectives;
  std::optional<HostTensor> loss;  // this rank's local value
  double gradient_norm = 0;        // where it was asked for
  double seconds = 0;
  double collective_seconds = 0;  // of them
  int64_t peak_bytes = 0;         // see RunResponse
  RunTimeline timeline;           // where it was asked for
};

struct LoadEntry {
  std::string fqn;
  std::string upload;
};
struct CommitCall {
  StepNumber step;
  std::optional<OptimizerOptions> optimizer;
  std::optional<double> clip_norm;
  std::vector<LoadEntry> load_state;
  bool reset_optimizer = false;
  bool abandon = false;
};

// A training step as all ranks are told it alike. Immutable: shared by the
// calls that are under way, so that its inputs lie here once.
class TrainStep {
 public:
  TrainStep(RunCall run, CommitCall commit)
      : run_(std::move(run)), commit_(std::move(commit)) {}

  const RunCall& run() const { return run_; }  // expected_hash is not read
  const CommitCall& commit() const { return commit_; }
  // What all ranks are sent alike: `pieces`, in a row. Large tensors among them
  // lie in the step itself, the rest in `written`.
  struct Encoding {
    std::deque<std::string> written;
    std::vector<absl::string_view> pieces;
    size_t bytes = 0;
    size_t run_bytes = 0;  // of them; see EncodeStep
  };
  // What `encode` makes of it, made once for all ranks.
  const Encoding& Encoded(Encoding (*encode)(const TrainStep& step)) const {
    absl::call_once(encoded_, [&] { encoding_ = encode(*this); });
    return encoding_;
  }
  // The same for ranks on this machine to read where it lies, made once; null:
  // the system has no memory for it.
  const std::shared_ptr<const SharedBytes>& Shared(
      Encoding (*encode)(const TrainStep& step)) const {
    absl::call_once(shared_once_, [&] {
      auto shared = SharedBytes::Create(Encoded(encode).pieces);
      if (!shared.ok()) return;
      shared_ = std::make_shared<const SharedBytes>(*std::move(shared));
    });
    return shared_;
  }

 private:
  const RunCall run_;
  const CommitCall commit_;
  mutable absl::once_flag encoded_;
  mutable Encoding encoding_;
  mutable absl::once_flag shared_once_;
  mutable std::shared_ptr<const SharedBytes> shared_;  // by messages
};
struct StepOutcome {
  RunOutcome run;
  double commit_seconds = 0;  // agreement and update
};

struct ParameterKey {
  std::string fqn;
};
struct GradientKey {
  std::string fqn;
};
struct OutputKey {
  int index = 0;
};
struct InputGradientKey {
  int index = 0;
};
using TensorKey =
    std::variant<ParameterKey, GradientKey, OutputKey, InputGradientKey>;

struct MaterializeProgress {
  int64_t bytes_done = 0;  // of one rank's shards
  int64_t bytes_total = 0;
};

// One rank's part of a step, as v1::GetTimelineResponse.
struct StepRecording {
  int64_t received_unix = 0;  // nanoseconds, as all below
  RunTimeline run;
  int64_t run_nanos = 0;
  int64_t agree_nanos = 0;
  int64_t update_nanos = 0;
  ProgramId program;
};

struct LocalTensor {
  HostTensor local;
  TensorType global;
  DTensorSpec spec;
};

// A tensor on its way up, chunk by chunk. One thread at a time.
class TensorSink {
 public:
  virtual ~TensorSink() = default;  // without Finish: the worker drops it
  // False when the stream is broken; Finish says why.
  virtual bool Write(const v1::TensorData& chunk) = 0;
  virtual absl::Status Finish() = 0;
};

// A tensor on its way down. One thread at a time.
class TensorFlow {
 public:
  virtual ~TensorFlow() = default;
  virtual absl::StatusOr<LocalTensor> Finish() = 0;
};

// One worker process, by address. Thread-safe. Unary calls are asynchronous:
// `done` runs exactly once, on any thread, maybe before the call returns, and
// must not block. Every call has a deadline and ends early, as Cancelled, when
// its `cancellation` is cancelled. A status of the connection (the process is
// gone) is Unavailable without an ErrorInfo; one of the worker has its info.
class WorkerClient {
 public:
  using Done = std::function<void(absl::Status)>;
  template <typename T>
  using Answer = std::function<void(absl::StatusOr<T>)>;

  virtual ~WorkerClient() = default;

  virtual void JoinGang(const GangRef& gang, const JoinGangCall& call,
                        const CallOptions& options, Done done) = 0;
  virtual void LeaveGang(const GangRef& gang, const CallOptions& options,
                         Done done) = 0;
  virtual void Abort(const GangRef& gang, const std::string& reason,
                     const CallOptions& options, Done done) = 0;
  virtual void Materialize(const GangRef& gang, const MaterializeCall& call,
                           const CallOptions& options,
                           Answer<std::vector<CollectiveCount>> done) = 0;
  virtual void LoadProgram(const GangRef& gang, const ProgramId& id,
                           const ShardedProgram& program,
                           const CallOptions& options, Done done) = 0;
  virtual void Run(const GangRef& gang, const RunCall& call,
                   const CallOptions& options, Answer<RunOutcome> done) = 0;
  virtual void Commit(const GangRef& gang, const CommitCall& call,
                      const CallOptions& options, Done done) = 0;
  // The rank runs the step, agrees with all others that they have run it, and
  // commits it; or they all discard it. Steps of a gang are run and answered in
  // the order of these calls, each when the one before is over: that is when
  // its timeout begins. One that is cancelled, or takes too long, ends those
  // behind it too, as Cancelled. LeaveGang ends what is under way.
  virtual void Step(const GangRef& gang,
                    const std::shared_ptr<const TrainStep>& step,
                    uint64_t expected_hash, const CallOptions& options,
                    Answer<StepOutcome> done) = 0;

  // Of the Materialize that runs; does not wait for it.
  virtual void GetProgress(const GangRef& gang, const CallOptions& options,
                           Answer<MaterializeProgress> done) = 0;
  // NotFound: the rank does not have it (any more).
  virtual void GetTimeline(const GangRef& gang, StepNumber step,
                           const CallOptions& options,
                           Answer<StepRecording> done) = 0;

  virtual std::unique_ptr<TensorSink> StageTensor(
      const GangRef& gang, const std::string& key, const TensorType& type,
      const CallOptions& options) = 0;
  virtual std::unique_ptr<TensorFlow> ReadTensor(
      const GangRef& gang, const TensorKey& key,
      const CallOptions& options) = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_WORKER_CLIENT_H_
