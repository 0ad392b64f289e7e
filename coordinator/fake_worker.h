// For tests: workers without processes.
#ifndef SHARDPLANE_COORDINATOR_FAKE_WORKER_H_
#define SHARDPLANE_COORDINATOR_FAKE_WORKER_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/coordinator.h"
#include "coordinator/worker_client.h"

namespace shardplane {

enum class Method {
  kJoinGang,
  kLeaveGang,
  kAbort,
  kMaterialize,
  kLoadProgram,
  kRun,
  kCommit,
  kStep,
  kStageTensor,
  kReadTensor,
  kGetProgress,
  kGetTimeline,
};

// Answers at once and as a worker would: its tensors are zeros, its loss is
// 0.5, its gradients' norm 2.5, it ran one all_reduce and one for the norm.
// Steps run one after the other on a thread of its own; one that does not
// follow the last committed number is refused. It knows nothing of other
// ranks: a test that fails a step on one of them says so to the others.
// Thread-safe.
class FakeWorker : public WorkerClient {
 public:
  ~FakeWorker() override;

  // The next call of `method` fails.
  void FailNext(Method method, absl::Status status);
  // Calls of `method` wait until Release, Abort (which ends them as
  // Unavailable, like a gang whose collectives are ended), Die or their
  // cancellation.
  void Hold(Method method);
  void Release(Method method);
  void WaitUntilHeld(Method method);
  // Until `method` has been called so many times.
  void WaitForCalls(Method method, int calls);
  void SetGradientNorm(double norm);  // else 2.5
  void SetProgress(MaterializeProgress progress);
  void SetRecording(StepRecording recording);  // of every step
  std::string last_traceparent() const;        // of a unary call that had one
  // It takes steps of any number from now on.
  void Forgive();
  // It does not obey Abort any more.
  void Freeze();
  // The process is gone: all calls fail as a broken connection does.
  void Die();

  int calls(Method method) const;
  std::vector<CommitCall> commits() const;
  std::vector<RunCall> runs() const;
  std::vector<std::string> staged() const;  // keys, in order
  JoinGangCall joined() const;
  MaterializeCall materialized() const;
  std::string last_request_id() const;

  void JoinGang(const GangRef& gang, const JoinGangCall& call,
                const CallOptions& options, Done done) override;
  void LeaveGang(const GangRef& gang, const CallOptions& options,
                 Done done) override;
  void Abort(const GangRef& gang, const std::string& reason,
             const CallOptions& options, Done done) override;
  void Materialize(const GangRef& gang, const MaterializeCall& call,
                   const CallOptions& options,
                   Answer<std::vector<CollectiveCount>> done) override;
  void LoadProgram(const GangRef& gang, const ProgramId& id,
                   const ShardedProgram& program, const CallOptions& options,
                   Done done) override;
  void Run(const GangRef& gang, const RunCall& call, const CallOptions& options,
           Answer<RunOutcome> done) override;
  void Commit(const GangRef& gang, const CommitCall& call,
              const CallOptions& options, Done done) override;
  void Step(const GangRef& gang, const std::shared_ptr<const TrainStep>& step,
            uint64_t expected_hash, const CallOptions& options,
            Answer<StepOutcome> done) override;
  void GetProgress(const GangRef& gang, const CallOptions& options,
                   Answer<MaterializeProgress> done) override;
  void GetTimeline(const GangRef& gang, StepNumber step,
                   const CallOptions& options,
                   Answer<StepRecording> done) override;
  std::unique_ptr<TensorSink> StageTensor(const GangRef& gang,
                                          const std::string& key,
                                          const TensorType& type,
                                          const CallOptions& options) override;
  std::unique_ptr<TensorFlow> ReadTensor(const GangRef& gang,
                                         const TensorKey& key,
                                         const CallOptions& options) override;

 private:
  friend class FakeSink;
  struct Behaviour {
    int calls = 0;
    std::vector<absl::Status> failures;
    bool hold = false;
    int held = 0;
  };
  // How a call ends that need not wait; Now also counts it.
  absl::Status End(Method method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Now(Method method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Calls `finish` now, or from a thread of its own once it need not wait.
  void Serve(Method method, const GangRef& gang, const CallOptions& options,
             Done finish);
  // Waits as long as calls of `method` are held; then how the call ends.
  absl::Status AwaitRelease(Method method, const CallOptions& options,
                            int aborts);
  struct QueuedStep {
    std::shared_ptr<const TrainStep> step;
    uint64_t expected_hash;
    CallOptions options;
    Answer<StepOutcome> done;
    int aborts;
  };
  void WorkOnSteps();
  absl::StatusOr<StepOutcome> RunStep(const QueuedStep& queued);
  RunOutcome Outcome(const RunCall& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  LocalTensor Read(const TensorKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  absl::btree_map<Method, Behaviour> behaviours_ ABSL_GUARDED_BY(mu_);
  bool dead_ ABSL_GUARDED_BY(mu_) = false;
  bool frozen_ ABSL_GUARDED_BY(mu_) = false;
  int aborts_ ABSL_GUARDED_BY(mu_) = 0;
  std::string last_request_id_ ABSL_GUARDED_BY(mu_);
  std::string last_traceparent_ ABSL_GUARDED_BY(mu_);
  MaterializeProgress progress_ ABSL_GUARDED_BY(mu_);
  StepRecording recording_ ABSL_GUARDED_BY(mu_);
  JoinGangCall joined_ ABSL_GUARDED_BY(mu_);
  MaterializeCall materialized_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<std::string, ShardedProgram> programs_ ABSL_GUARDED_BY(mu_);
  double gradient_norm_ ABSL_GUARDED_BY(mu_) = 2.5;
  std::vector<RunCall> runs_ ABSL_GUARDED_BY(mu_);
  ProgramId last_program_ ABSL_GUARDED_BY(mu_);  // whose outputs there are
  std::vector<CommitCall> commits_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> staged_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  StepNumber committed_ ABSL_GUARDED_BY(mu_);
  bool forgiving_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<QueuedStep> steps_ ABSL_GUARDED_BY(mu_);
  bool stepping_ ABSL_GUARDED_BY(mu_) = false;  // a thread works on them
};

// Fake workers by address, and the options of a coordinator that finds them.
class FakeCluster {
 public:
  // Addresses are ids: worker w0 listens at "w0".
  FakeWorker& worker(const std::string& id);
  Coordinator::Options options();
  void Advance(absl::Duration duration);
  absl::Time now() const;

 private:
  std::shared_ptr<FakeWorker> Find(const std::string& id);
  std::string NextUid();

  mutable absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::FromUnixSeconds(1000);
  int ids_ ABSL_GUARDED_BY(mu_) = 0;
  // Shared with the coordinator under test.
  absl::btree_map<std::string, std::shared_ptr<FakeWorker>> workers_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_FAKE_WORKER_H_
