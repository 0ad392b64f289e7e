// The coordinator: holds the registry and the deployments, and drives their
// state machines by calling workers.
#ifndef SHARDPLANE_COORDINATOR_COORDINATOR_H_
#define SHARDPLANE_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/explain.h"
#include "common/optimizer.h"
#include "coordinator/background.h"
#include "coordinator/bulletin.h"
#include "coordinator/deployment.h"
#include "coordinator/ids.h"
#include "coordinator/module_registry.h"
#include "coordinator/operation_registry.h"
#include "coordinator/planner.h"
#include "coordinator/rendezvous.h"
#include "coordinator/step_trace.h"
#include "coordinator/task_threads.h"
#include "coordinator/worker_client.h"
#include "coordinator/worker_registry.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

namespace shardplane {

// What a service knows of the call that it serves.
struct CallContext {
  absl::Time deadline = absl::InfiniteFuture();
  std::function<bool()> cancelled;  // whether the caller has gone; may be null
  std::string traceparent = {};     // W3C trace context; "": none
};

struct CreateModuleCall {
  ModuleSpec spec;
  std::optional<ModuleId> id;
  bool validate_only = false;
};

struct CreateCall {
  DeploymentSpec spec;  // its module is looked up where there is a module_id
  std::optional<SignatureSpec> signature;
  std::optional<DeploymentId> id;
  bool validate_only = false;
};

struct ForwardCall {
  DeploymentId deployment;
  ProgramName program;
  GangEpoch epoch;  // 0: whatever the gang's is
  std::vector<TensorSource> inputs;
};
struct ForwardOutput {
  TensorType type;
  DTensorSpec spec;
  std::optional<std::string> bytes;  // of the global value, where it is small
};
struct ForwardAnswer {
  std::vector<ForwardOutput> outputs;
  std::vector<CollectiveCount> collectives;
  std::vector<int64_t> peak_run_bytes;  // by rank
};

struct TrainAction {
  ProgramName program;
  std::vector<TensorSource> inputs;
  std::vector<TensorSource> targets;
  std::optional<OptimizerOptions> optimizer;
  bool accumulate = false;
  std::optional<double> clip_norm;
  bool timeline = false;
};
struct UpdateAction {
  OptimizerOptions optimizer;
  std::optional<double> clip_norm;
};
struct LoadStateAction {
  std::vector<LoadEntry> entries;
};
struct ResetOptimizerAction {};
using StepAction = std::variant<TrainAction, UpdateAction, LoadStateAction,
                                ResetOptimizerAction>;
struct StepCall {
  DeploymentId deployment;
  StepNumber number;
  GangEpoch epoch;
  std::string digest;  // of the request, without its id and epoch
  StepAction action;
  std::string traceparent = {};  // that the client sent; "": none
};

struct UploadCall {
  DeploymentId deployment;
  GangEpoch epoch;
  TensorType type;
  std::optional<std::string> parameter;  // FQN; else
  std::string upload;                    // an id of the client's choice
  std::optional<int> rank;
};

struct DownloadCall {
  DeploymentId deployment;
  GangEpoch epoch;
  TensorKey tensor;
  std::optional<int> rank;  // that rank's shard; else the global value
};
struct DownloadedTensor {
  HostTensor tensor;
  DTensorSpec spec;
};

// A training step that its ranks have been told, or that is known: see
// Coordinator::BeginTrain. Must be given to FinishTrain.
struct TrainUnderWay {
  std::shared_ptr<Deployment> deployment;  // shared with the coordinator
  ActionQueue::Turn turn;
  TrainAction action;  // its tensors are in `step`
  StepNumber number;
  absl::Time received;
  absl::Time begin;
  absl::Time told;                     // all ranks were, then
  std::string traceparent;             // that the client sent; "": none
  std::optional<StepAnswer> recorded;  // then nothing runs
  uint64_t drops = 0;                  // DeploymentState's, as it was accepted
  std::shared_ptr<const DeploymentProgram> program;
  // Shared with the clients of the ranks.
  std::shared_ptr<const TrainStep> step;
  std::vector<StepOutcome> outcomes;  // by rank; the ranks' calls write there
  std::unique_ptr<Gang::FanOut> fan_out;
};

// An upload under way: relayed as it comes. One thread at a time.
class UploadSession {
 public:
  virtual ~UploadSession() = default;  // without Finish: the workers drop it
  virtual absl::Status Write(const v1::TensorData& chunk) = 0;
  // The number of bytes.
  virtual absl::StatusOr<int64_t> Finish() = 0;
};

// Thread-safe; methods block the caller's thread. Owned by main(). Methods on
// a deployment return, beside what they say: NotFound (no such deployment),
// Aborted (stale epoch), FailedPrecondition (FAILED, or not the right state),
// Unavailable (a worker was lost now; the message names it and its rank),
// DeadlineExceeded (its turn did not come).
class Coordinator {
 public:
  struct Options {
    absl::Duration lease = absl::Seconds(10);
    Incarnation incarnation{1};
    GangEpoch first_epoch{1};  // larger than those of earlier incarnations
    // host:port of the Rendezvous service for workers; "": as they know it.
    std::function<std::string()> rendezvous_address;
    std::function<std::shared_ptr<WorkerClient>(const std::string& address)>
        connect;
    std::function<absl::Time()> clock;
    std::function<std::string()> random_id;  // for names: 8 hex digits
    std::function<std::string()> random_uid;
    Metrics* metrics = nullptr;  // outlives the coordinator; may be null
    const Log* log = nullptr;    // the same
    absl::Duration call_timeout = absl::Seconds(30);
    absl::Duration join_timeout = absl::Seconds(60);
    absl::Duration collective_timeout = absl::Seconds(120);
    absl::Duration run_timeout = absl::Minutes(10);
    absl::Duration upload_timeout = absl::Minutes(30);
    Gang::Options gang;
    // Of deployments that come without.
    LinkCosts link_costs = kDefaultLinkCosts;
    bool fused_operators = false;  // in all programs
  };

  explicit Coordinator(Options options);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  // ---- membership: coordinator.cc. Errors as WorkerRegistry's.
  struct Lease {
    Incarnation coordinator;
    absl::Duration duration;
  };
  absl::StatusOr<Lease> RegisterWorker(const WorkerIntroduction& introduction);
  absl::StatusOr<Lease> RenewLease(const WorkerId& id, Incarnation incarnation,
                                   LeaseRequest request);
  std::vector<WorkerRecord> ListWorkers() const;
  absl::StatusOr<WorkerRecord> GetWorker(const WorkerId& id) const;
  // Expires leases, asks how far operations are, shows what has changed; call
  // it several times a lease.
  void Tick();
  // FailedPrecondition: neither READY nor DRAINING. In
  // coordinator_operations.cc, as all to ListSteps.
  absl::StatusOr<WorkerRecord> DrainWorker(const WorkerId& id, bool undo);

  // ---- operations and what is told of them
  // NotFound: no such operation.
  absl::StatusOr<OperationRecord> GetOperation(const OperationId& id) const;
  std::vector<OperationRecord> ListOperations() const;
  // Returns when it is over, or at the deadline.
  absl::StatusOr<OperationRecord> WaitOperation(
      const OperationId& id, const CallContext& context) const;
  // Its deployment fails. Returns when it is over.
  absl::StatusOr<OperationRecord> CancelOperation(const OperationId& id);
  Bulletin& bulletin() { return bulletin_; }
  // Those above `after`, oldest first, as StepHistory keeps them.
  absl::StatusOr<std::vector<StepAnswer>> ListSteps(const DeploymentId& id,
                                                    StepNumber after,
                                                    size_t limit) const;
  Rendezvous& rendezvous() { return rendezvous_; }
  // Ends all calls that wait for workers, as Unavailable with `reason`, for a
  // process that must go now. No gang is of use afterwards.
  void EndCalls(const std::string& reason);

  // ---- modules: coordinator_modules.cc. Errors as ModuleRegistry's.
  // validate_only checks and keeps nothing: the record has no uid.
  absl::StatusOr<ModuleRecord> CreateModule(CreateModuleCall call);
  absl::StatusOr<ModuleRecord> GetModule(const ModuleId& id) const;
  std::vector<ModuleRecord> ListModules() const;
  // Deployments made from it go on with their copies.
  absl::Status DeleteModule(const ModuleId& id, absl::string_view etag,
                            bool allow_missing);

  // ---- deployments: coordinator_deploy.cc
  // validate_only plans and touches nothing: any number of workers will do.
  // AlreadyExists: the id is taken. FailedPrecondition: too few workers.
  // NotFound: no such named module. Errors of PlanDeployment.
  absl::StatusOr<DeploymentInfo> CreateDeployment(CreateCall call,
                                                  const CallContext& context);
  absl::StatusOr<DeploymentInfo> GetDeployment(const DeploymentId& id) const;
  std::vector<DeploymentInfo> ListDeployments() const;
  // NotFound: also no module, parameter or buffer of that FQN (it names the
  // closest). A dry run is planned, and nothing is made; errors of
  // CreateDeployment. In coordinator_explain.cc.
  absl::StatusOr<Explanation> ExplainDeployment(const DeploymentId& id,
                                                absl::string_view fqn) const;
  absl::StatusOr<Explanation> ExplainDryRun(CreateCall call,
                                            absl::string_view fqn) const;
  struct DeleteCall {
    DeploymentId id;
    std::string etag;  // "": any; else Aborted unless it is the present one
    bool allow_missing = false;
  };
  absl::Status DeleteDeployment(const DeleteCall& call);
  // FailedPrecondition: parameters without data (it names the first), or an
  // operation of this kind that runs.
  enum class Wait { kUntilDone, kNot };  // kNot: returns once it has begun
  absl::StatusOr<DeploymentInfo> MaterializeDeployment(
      const DeploymentId& id, GangEpoch epoch, const CallContext& context,
      Wait wait = Wait::kUntilDone);

  // ---- programs: coordinator_program.cc
  absl::StatusOr<std::shared_ptr<const DeploymentProgram>> CreateProgram(
      const DeploymentId& id, const SignatureSpec& signature,
      bool validate_only, const CallContext& context);
  absl::StatusOr<std::shared_ptr<const DeploymentProgram>> GetProgram(
      const DeploymentId& id, const ProgramId& program) const;
  // In the order of ids.
  absl::StatusOr<std::vector<std::shared_ptr<const DeploymentProgram>>>
  ListPrograms(const DeploymentId& id) const;

  // ---- actions: coordinator_step.cc
  // InvalidArgument: inputs of another number, shape or dtype.
  absl::StatusOr<ForwardAnswer> Forward(const ForwardCall& call,
                                        const CallContext& context);
  // Aborted: a number out of turn. InvalidArgument as Forward, or bad
  // optimizer values. FailedPrecondition: a program without a loss, optimizer
  // state of another kind.
  absl::StatusOr<StepAnswer> Step(StepCall call, const CallContext& context);
  // ---- training steps: coordinator_train.cc
  // Step in two parts, for a TrainAction, so that further ones begin while some
  // are under way; beside those nothing else acts on the deployment. Each must
  // be finished, in the order in which they began. The one that fails takes
  // those behind it with it: they are Aborted, naming the number expected.
  absl::StatusOr<std::unique_ptr<TrainUnderWay>> BeginTrain(
      StepCall call, const CallContext& context);
  absl::StatusOr<StepAnswer> FinishTrain(std::unique_ptr<TrainUnderWay> step);
  // Whether its ranks have all answered.
  static bool IsOver(const TrainUnderWay& step);
  // Errors as DeploymentState::FindAnswer.
  absl::StatusOr<StepAnswer> GetStep(const DeploymentId& id,
                                     StepNumber number) const;
  // Where a training step spent its time, on the coordinator and each rank.
  // NotFound: it has not run; OutOfRange: no longer kept here or on a rank. In
  // coordinator_timeline.cc.
  absl::StatusOr<StepTrace> GetStepTimeline(const DeploymentId& id,
                                            StepNumber number) const;

  // ---- tensors: coordinator_tensors.cc
  absl::StatusOr<std::unique_ptr<UploadSession>> Upload(const UploadCall& call);
  absl::StatusOr<DownloadedTensor> Download(const DownloadCall& call,
                                            const CallContext& context);

 private:
  friend class RelayedUpload;
  using DeploymentPtr = std::shared_ptr<Deployment>;
  struct Connection {
    Incarnation incarnation;
    std::shared_ptr<WorkerClient> client;  // shared with gangs
  };

  absl::Time Now() const { return options_.clock(); }
  // A call to workers. Its id is new each time: what a client repeats after a
  // failure is done anew, not answered from a worker's memory.
  Gang::CallSpec Spec(absl::Duration timeout,
                      std::string traceparent = {}) const {
    return {options_.random_uid(), timeout, std::move(traceparent)};
  }
  absl::StatusOr<DeploymentPtr> Find(const DeploymentId& id) const;
  // The deployment, its epoch checked, and its turn.
  struct Admitted {
    DeploymentPtr deployment;
    ActionQueue::Turn turn;
  };
  absl::StatusOr<Admitted> Admit(
      const DeploymentId& id, GangEpoch epoch, const CallContext& context,
      ActionQueue::Kind kind = ActionQueue::Kind::kAlone) const;

  // Of the worker's deployment: a worker retires when its own part of a step is
  // done, and the other ranks must be let finish theirs. Until they have, but
  // no longer than the worker waits; then nothing else begins.
  std::optional<Admitted> AwaitLastCall(const WorkerId& id,
                                        Incarnation incarnation) const;
  void HandleDepartures(const std::vector<Departure>& departures);
  // Tells the state machine of a failed call, that of `step` if there is one,
  // and does what it says. Returns the failure's status, for the caller.
  absl::Status HandleFailure(const DeploymentPtr& deployment,
                             const CallFailure& failure, StepNumber step = {});
  void Perform(const DeploymentPtr& deployment,
               const std::vector<DeploymentAction>& actions);
  void LeaveGang(const DeploymentPtr& deployment);
  void UpdateWorkerMetrics() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddMetric(Counter counter, LabelValues labels, double amount = 1);

  // coordinator_modules.cc
  // Puts a copy of the named module, if there is a name, into `spec`.
  absl::Status CopyModule(DeploymentSpec* spec) const;

  // coordinator_deploy.cc
  // What a request may leave out, and CopyModule.
  absl::Status Complete(DeploymentSpec* spec) const;
  absl::StatusOr<PlannedDeployment> Plan(CreateCall* call);
  absl::StatusOr<std::shared_ptr<Gang>> SeatGang(const DeploymentId& id,
                                                 int count);
  absl::StatusOr<DeploymentPtr> FormDeployment(
      const DeploymentId& id, std::shared_ptr<const DeploymentSpec> spec,
      const PlannedDeployment& planned, const CallContext& context);
  std::optional<CallFailure> JoinGang(const DeploymentPtr& deployment);
  absl::Status ReserveId(const DeploymentId& id);
  absl::Status CheckDataUploaded(Deployment& deployment);
  absl::StatusOr<OperationId> BeginMaterialize(const DeploymentPtr& deployment);
  absl::Status Materialize(const DeploymentPtr& deployment,
                           const OperationId& operation,
                           const std::string& traceparent);
  std::optional<CallFailure> MaterializeOnAll(
      Deployment& deployment, const std::string& traceparent,
      std::vector<std::vector<CollectiveCount>>* ran);

  // coordinator_operations.cc
  // Of an operation that runs: what its ranks have last said.
  struct ProgressBoard {
    explicit ProgressBoard(int size) : ranks(size) {}
    OperationProgress Sum() const;
    mutable absl::Mutex mu;
    std::vector<MaterializeProgress> ranks ABSL_GUARDED_BY(mu);
  };
  struct RunningOperation {
    DeploymentPtr deployment;
    // Shared with questions that are under way.
    std::shared_ptr<ProgressBoard> board;
  };
  absl::StatusOr<OperationId> BeginOperation(const DeploymentPtr& deployment,
                                             OperationKind kind);
  void EndOperation(const OperationId& id, const absl::Status& status);
  void PollOperations();
  void AskForProgress(const RunningOperation& operation);
  // The same, and waits for the answers.
  void AwaitProgress(const OperationId& id);
  // Shows a deployment, and tells of the phase that it has entered.
  void Publish(const DeploymentPtr& deployment);
  void PublishWorker(const WorkerId& id);
  void PublishAll();
  void UpdateDeploymentMetrics(const std::vector<Shown>& deployments)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(publishing_);
  void UpdateOperationMetrics() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // coordinator_program.cc
  absl::Status AddProgram(const DeploymentPtr& deployment,
                          std::shared_ptr<const DeploymentProgram> program);

  // coordinator_step.cc
  std::optional<CallFailure> RunOnAll(Deployment& deployment,
                                      const RunCall& call,
                                      const DeploymentProgram* program,
                                      std::vector<RunOutcome>* outcomes);
  // The norm of the gradients that there are, for an update alone.
  absl::StatusOr<StepAnswer> RunNorm(const DeploymentPtr& deployment,
                                     StepNumber number);
  absl::Status CommitStep(const DeploymentPtr& deployment,
                          const StepCall& call);
  absl::Status AcceptAlone(Deployment& deployment, const StepCall& call);
  absl::StatusOr<StepAnswer> NewStep(const DeploymentPtr& deployment,
                                     const StepCall& call);
  // The step is committed: what is known of it from now on.
  absl::Status Record(Deployment& deployment, const StepAction& action,
                      const StepAnswer& answer);
  void TellOfFailure(const DeploymentPtr& deployment, StepNumber number,
                     const absl::Status& status);
  void CountStep(absl::string_view phase, const absl::Status& status,
                 absl::Duration duration);

  // coordinator_train.cc
  // What is to be done with it now. Train: it is accepted, its ranks are told.
  absl::StatusOr<DeploymentAction> TryBegin(StepCall& call,
                                            TrainUnderWay& step);
  absl::Status AcceptTrain(Deployment& deployment, const StepCall& call,
                           TrainUnderWay& step)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(deployment.mu);
  void TellRanks(StepCall& call, TrainUnderWay& step);
  // What came of it; a failure is handled.
  absl::StatusOr<StepAnswer> AnswerOf(TrainUnderWay& step,
                                      std::optional<CallFailure> failure);
  void ObserveOverhead(const StepAnswer& answer);
  absl::Status RecordTrain(const TrainUnderWay& step, const StepAnswer& answer);
  absl::Status FinishDropped(const TrainUnderWay& step,
                             const std::optional<CallFailure>& failure);

  // coordinator_tensors.cc
  // Puts the canonical name in the place of an alias.
  absl::Status CheckParameterUpload(Deployment& deployment, UploadCall* call);
  absl::StatusOr<HostTensor> ReadGlobal(const DeploymentPtr& deployment,
                                        const TensorKey& key,
                                        const TensorType& type,
                                        const DTensorSpec& spec);

  const Options options_;
  Rendezvous rendezvous_;
  Bulletin bulletin_;
  // Held from looking at a resource until it is shown, so that no older state
  // is shown behind a newer one. Before all other locks.
  absl::Mutex publishing_;
  // Whose last step is a metric.
  absl::btree_set<std::string> counted_deployments_
      ABSL_GUARDED_BY(publishing_);

  mutable absl::Mutex mu_;
  OperationRegistry operations_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<OperationId, RunningOperation> running_ ABSL_GUARDED_BY(mu_);
  WorkerRegistry registry_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<WorkerId, Connection> connections_ ABSL_GUARDED_BY(mu_);
  ModuleRegistry modules_ ABSL_GUARDED_BY(mu_);
  // nullptr: the id is reserved for one that is being formed.
  absl::btree_map<DeploymentId, DeploymentPtr> deployments_
      ABSL_GUARDED_BY(mu_);
  GangEpoch next_epoch_ ABSL_GUARDED_BY(mu_);

  // Gangs that leave; last but for the tasks that may add to it.
  Background background_;
  TaskThreads tasks_;  // operations that nobody waits for
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_COORDINATOR_H_
