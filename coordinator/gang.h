// The workers of one deployment, by rank, called together.
#ifndef SHARDPLANE_COORDINATOR_GANG_H_
#define SHARDPLANE_COORDINATOR_GANG_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/cancellation.h"
#include "coordinator/deployment_state.h"
#include "coordinator/ids.h"
#include "coordinator/worker_client.h"

namespace shardplane {

// How a call to the ranks has failed.
struct CallFailure {
  int rank = 0;         // the culprit: one that is gone before all others
  absl::Status status;  // its error; names worker and rank
  GangHealth health = GangHealth::kIntact;
  std::vector<int> lost;  // ranks whose connection broke
  int succeeded = 0;      // ranks that did what they were told
  bool ended = false;     // ranks did not come back by themselves
};

// Thread-safe. Shared by the calls that run on it: one may still be unwinding
// when its deployment has gone.
//
// Of the ranks' errors one is the culprit: a rank that is gone before all
// others, then one with an error of its own, then those whose collectives
// were ended, last those that have only heard of a peer's error (PEER_FAILED).
class Gang {
 public:
  struct Member {
    WorkerId worker;
    Incarnation incarnation;
    std::shared_ptr<WorkerClient> client;  // shared with the coordinator
  };
  struct Options {
    // How long the other ranks get to notice by themselves that one failed,
    // and, once they are told to abort, to come back.
    absl::Duration grace = absl::Seconds(2);
    absl::Duration abort_timeout = absl::Seconds(5);
  };
  // Starts one rank's part; its `done` runs once.
  using RankCall =
      std::function<void(int rank, WorkerClient& client, const GangRef& gang,
                         const CallOptions& options, WorkerClient::Done done)>;
  struct CallSpec {
    std::string request_id;
    absl::Duration timeout = absl::Seconds(30);
    std::string traceparent = {};
  };

  Gang(DeploymentId deployment, GangEpoch epoch, std::vector<Member> members,
       Options options);

  // Calls all ranks in parallel and waits for them. When one fails the others
  // get a little time, then Abort, then are cancelled.
  std::optional<CallFailure> CallAll(const CallSpec& spec,
                                     const RankCall& call) {
    return Finish(Begin(spec, call));
  }
  // The same in two parts, so that several calls are under way: each must be
  // finished, in the order in which they began.
  class FanOut;
  std::unique_ptr<FanOut> Begin(const CallSpec& spec, const RankCall& call);
  std::optional<CallFailure> Finish(std::unique_ptr<FanOut> fan_out);
  // Whether all ranks have come back: Finish will not wait.
  bool IsOver(const FanOut& fan_out) const;
  // The same without consequences: failures of single ranks are ignored, and
  // it also works on a broken gang.
  void TryAll(const CallSpec& spec, const RankCall& call);

  // Calls all ranks that are not gone, and waits for none.
  using Question =
      std::function<void(int rank, WorkerClient& client, const GangRef& gang,
                         const CallOptions& options)>;
  void Ask(absl::Duration timeout, const Question& question);

  // The shards of `ranks`, in their order.
  std::optional<CallFailure> Read(const CallSpec& spec,
                                  absl::Span<const int> ranks,
                                  const TensorKey& key,
                                  std::vector<LocalTensor>* tensors);
  // One sink a rank.
  std::vector<std::unique_ptr<TensorSink>> Stage(const CallSpec& spec,
                                                 absl::Span<const int> ranks,
                                                 const std::string& key,
                                                 const TensorType& type);
  // `statuses` of `ranks`; nullopt if all are OK.
  std::optional<CallFailure> Judge(absl::Span<const int> ranks,
                                   absl::Span<const absl::Status> statuses);

  // Ends what runs: calls fail as Unavailable with `reason`, and further ones
  // too. The first reason stays.
  void Break(const std::string& reason);

  // The worker of that rank is gone: an aborted call does not wait for it, and
  // TryAll leaves it out.
  void Forget(int rank);

  int size() const { return static_cast<int>(members_.size()); }
  const Member& member(int rank) const { return members_[rank]; }
  GangEpoch epoch() const { return epoch_; }

 private:
  GangRef RefOf(int rank, const std::string& request_id) const;
  void Start(FanOut& fan_out, const CallSpec& spec, const RankCall& call);
  // True if every rank came back by itself.
  bool AwaitByThemselves(FanOut& fan_out);
  void AbortOthers(FanOut& fan_out);
  absl::Status Broken() const;
  bool Waits(const FanOut& fan_out) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const DeploymentId deployment_;
  const GangEpoch epoch_;
  const std::vector<Member> members_;
  const Options options_;
  Cancellation streams_;

  mutable absl::Mutex mu_;
  std::string broken_ ABSL_GUARDED_BY(mu_);
  std::vector<bool> gone_ ABSL_GUARDED_BY(mu_);  // by rank
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;    // the ranks were told
};

// A call to all ranks that is under way; by rank. Guarded by its gang's lock.
class Gang::FanOut {
 private:
  friend class Gang;
  absl::Status refused;  // nothing has begun
  std::vector<absl::Status> statuses;
  std::vector<bool> done;
  int pending = 0;
  bool failed = false;
  Cancellation cancellation;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_GANG_H_
