// The seam between a worker's service and its tensors: no torch and no gRPC
// here. The service converts messages and calls an Executor; TorchExecutor
// (worker/torch_executor.cc) is the real one.
#ifndef SHARDPLANE_WORKER_EXECUTOR_H_
#define SHARDPLANE_WORKER_EXECUTOR_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/collective_count.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/host_tensor.h"
#include "common/optimizer.h"
#include "common/sharded_program.h"
#include "common/tensor_spec.h"
#include "common/timeline.h"
#include "worker/transport.h"

namespace shardplane {

// A gang's key-value store as c10d needs it. Implemented over the
// coordinator's RPC (worker/rendezvous_client) and in memory for tests.
// Thread-safe.
class GangStore {
 public:
  virtual ~GangStore() = default;
  virtual absl::Status Set(const std::string& key, std::string value) = 0;
  // Waits for all keys. DeadlineExceeded after `timeout`.
  virtual absl::StatusOr<std::vector<std::string>> Get(
      const std::vector<std::string>& keys,
      std::chrono::milliseconds timeout) = 0;
  virtual absl::StatusOr<int64_t> Add(const std::string& key,
                                      int64_t amount) = 0;
  virtual absl::StatusOr<std::string> CompareSet(
      const std::string& key, const std::string& expected,
      const std::string& desired) = 0;
  virtual absl::StatusOr<bool> Delete(const std::string& key) = 0;
  virtual absl::StatusOr<bool> Check(const std::vector<std::string>& keys) = 0;
  virtual absl::StatusOr<int64_t> NumKeys() = 0;
  // Ends calls that wait, and every later one, with Cancelled. For a gang that
  // is given up while it is still being formed.
  virtual void Cancel() = 0;
};

struct GangSpec {
  std::string deployment;
  uint64_t epoch = 0;
  int rank = 0;
  DeviceMesh mesh;
  // Of forming the gang, and of every collective.
  std::chrono::milliseconds timeout{60'000};
};

// One parameter or buffer to materialize, under its canonical FQN.
struct ParameterSource {
  std::string fqn;
  TensorType type;
  DTensorSpec spec;
  bool requires_grad = false;
  std::optional<Initializer> initializer;  // else its staged data
};

struct MaterializeSpec {
  std::vector<ParameterSource> parameters;
  int plan_mesh_dim = 0;
  std::optional<int> src_data_rank;  // group rank along plan_mesh_dim
  uint64_t seed = 0;
};

// How far a Materialize has come; written while it runs, read on any thread.
struct MaterializeProgress {
  std::atomic<int64_t> bytes_done = 0;  // of this rank's shards
  std::atomic<int64_t> bytes_total = 0;
  std::atomic<int64_t> bytes_read = 0;  // of those done, what lay in files
};

// Where the time in collectives went.
struct CollectiveSeconds {
  // By RedistributeKind, of those that communicate.
  std::array<double, 4> by_kind = {};
  double waiting = 0;  // for what they had begun on a GPU
  double total() const {
    return std::accumulate(by_kind.begin(), by_kind.end(), waiting);
  }
};

// Bytes of the collectives of one kind, as CollectiveCount has both, that one
// transport carried.
struct CarriedBytes {
  std::string kind;
  Transport transport = Transport::kGloo;
  int64_t bytes = 0;
  friend bool operator==(const CarriedBytes&, const CarriedBytes&) = default;
};

// What ran: counts for people, and a hash to compare with the program's.
struct RanCollectives {
  std::vector<CollectiveCount> counts;
  uint64_t hash = kCollectiveHashSeed;
  std::vector<CarriedBytes> carried;  // of all of them together
};

// kNorm: no program, the norm of the gradients that there are.
enum class RunMode { kForward, kTrain, kNorm };

struct RunSpec {
  std::string program;
  RunMode mode = RunMode::kForward;
  // Global inputs, then targets: staged under these keys (consumed by the
  // run); each rank takes its own part.
  std::vector<std::string> inputs;
  bool accumulate = false;
  // The step that random masks are drawn for.
  uint64_t random_step = 0;
  // Also the global norm of the gradients as Commit will find them.
  bool gradient_norm = false;
  bool timeline = false;  // also what ran when
  // With it: also of a run that could be a graph, which then is none.
  bool timeline_by_operator = false;
  // The gradients need not be made, as the update that follows OnlyAdds them: a
  // rank may keep what they are the products of. They are made when they are
  // asked for.
  bool keep_products = false;
};

struct RunResult {
  RanCollectives ran;              // forward, backward, then optimizer
  std::optional<HostTensor> loss;  // this rank's local value, kTrain
  double gradient_norm = 0;        // alike on every rank; if asked for
  double seconds = 0;
  CollectiveSeconds collective_seconds;  // of them
  // The most that tensors on the device took at one time beyond what was there
  // before the run: inputs, activations, gradients. 0: not measured.
  int64_t peak_bytes = 0;
  RunTimeline timeline;  // if asked for
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

struct ShardedTensor {
  HostTensor local;  // this rank's shard
  TensorType global;
  DTensorSpec spec;
};

// New values for parameters, staged under keys as global tensors.
struct LoadStateSpec {
  std::vector<std::pair<std::string, std::string>> entries;  // FQN, key
};

// What a rank says of the step that it has run, and the gang of it together.
enum class Verdict { kCommit, kDiscard };

struct Agreement {
  Verdict verdict = Verdict::kDiscard;  // kCommit if every rank says so
  std::vector<CollectiveCount> counts;  // what it took, phase "commit"
  std::vector<CarriedBytes> carried;    // of them
};

// Holds one gang's tensors and runs its programs. One thread at a time calls
// it (the service's executor thread), except Abort. Errors: FailedPrecondition
// without a gang or before Materialize, NotFound for unknown programs, staged
// keys and tensors, InvalidArgument for data that do not fit, Unavailable when
// a peer is gone (the gang is then broken and must be left), Internal else.
class Executor {
 public:
  virtual ~Executor() = default;

  // Leaves any earlier gang, forms one process group per mesh dim. Blocks
  // until all ranks are there.
  virtual absl::Status JoinGang(const GangSpec& spec,
                                std::shared_ptr<GangStore> store) = 0;
  virtual absl::Status LeaveGang() = 0;

  // Keeps a full tensor until something consumes it: a parameter's source
  // data ("parameter:" + FQN) or an input ("upload:" + id).
  virtual absl::Status Stage(const std::string& key, HostTensor tensor) = 0;

  virtual absl::StatusOr<RanCollectives> Materialize(
      const MaterializeSpec& spec,
      MaterializeProgress* progress /* may be null */) = 0;
  virtual absl::Status LoadProgram(const std::string& id,
                                   const ShardedProgram& program) = 0;

  // Runs forward, and with kTrain backward: gradients, and new values of
  // buffers that the program changes, are pending until Commit. kTrain of a
  // program without a loss, which must change buffers, is the forward pass. A
  // second Run before Commit discards what is pending.
  virtual absl::StatusOr<RunResult> Run(const RunSpec& spec) = 0;
  // What a Commit with these arguments would answer now, but for what only
  // goes wrong inside; changes nothing. Communicates nothing.
  virtual absl::Status CheckCommit(
      const std::optional<OptimizerOptions>& optimizer,
      std::optional<double> clip_norm) = 0;
  // Whether every rank says kCommit of what it has just run: one all-reduce of
  // one i32 along each mesh dim of size > 1, on every rank. FailedPrecondition,
  // reason OUT_OF_STEP: the last run broke off before its last collective, and
  // the other ranks wait for this one there; nothing is communicated then.
  virtual absl::StatusOr<Agreement> Agree(Verdict verdict) = 0;
  // Makes pending gradients and buffers the current ones (if any) and applies
  // an optimizer (if one is given) to all parameters with a gradient. With
  // `clip_norm` the optimizer sees them scaled, so that their global norm is at
  // most that; the last Run must have told the norm: else FailedPrecondition.
  // Communicates nothing.
  virtual absl::Status Commit(const std::optional<OptimizerOptions>& optimizer,
                              std::optional<double> clip_norm) = 0;
  virtual absl::Status Discard() = 0;  // pending gradients
  virtual absl::Status LoadState(const LoadStateSpec& spec) = 0;
  virtual absl::Status ResetOptimizer() = 0;

  virtual absl::StatusOr<ShardedTensor> Read(const TensorKey& key) = 0;

  // Ends a running collective; any thread. The gang is broken afterwards.
  virtual void Abort(absl::string_view reason) = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_EXECUTOR_H_
