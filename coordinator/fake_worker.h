// For tests: workers without processes.
#ifndef SHARDPLANE_COORDINATOR_FAKE_WORKER_H_
#define SHARDPLANE_COORDINATOR_FAKE_WORKER_H_

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
  kStageTensor,
  kReadTensor,
};

// Answers at once and as a worker would: its tensors are zeros, its loss is
// 0.5, its gradients' norm 2.5, it ran one all_reduce and one for the norm.
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
  void SetGradientNorm(double norm);  // else 2.5
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
  // How a call ends that need not wait; also counts it.
  absl::Status Now(Method method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Calls `finish` now, or from a thread of its own once it need not wait.
  void Serve(Method method, const GangRef& gang, const CallOptions& options,
             Done finish);
  LocalTensor Read(const TensorKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  absl::btree_map<Method, Behaviour> behaviours_ ABSL_GUARDED_BY(mu_);
  bool dead_ ABSL_GUARDED_BY(mu_) = false;
  bool frozen_ ABSL_GUARDED_BY(mu_) = false;
  int aborts_ ABSL_GUARDED_BY(mu_) = 0;
  std::string last_request_id_ ABSL_GUARDED_BY(mu_);
  JoinGangCall joined_ ABSL_GUARDED_BY(mu_);
  MaterializeCall materialized_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<std::string, ShardedProgram> programs_ ABSL_GUARDED_BY(mu_);
  double gradient_norm_ ABSL_GUARDED_BY(mu_) = 2.5;
  std::vector<RunCall> runs_ ABSL_GUARDED_BY(mu_);
  ProgramId last_program_ ABSL_GUARDED_BY(mu_);  // whose outputs there are
  std::vector<CommitCall> commits_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> staged_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
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
