// The life of one deployment as a pure state machine: an event and a time go
// in, actions for the driver come out.
#ifndef SHARDPLANE_COORDINATOR_DEPLOYMENT_STATE_H_
#define SHARDPLANE_COORDINATOR_DEPLOYMENT_STATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/host_tensor.h"
#include "common/report.h"
#include "common/timeline.h"
#include "coordinator/ids.h"

namespace shardplane {

enum class DeploymentPhase {
  kForming = 1,   // its gang is being formed
  kAwaitingData,  // gang formed, parameters may be uploaded
  kMaterializing,
  kReady,
  kFailed,  // for good; the reason names worker and rank
  kDeleted,
};
std::string ToString(DeploymentPhase phase);  // "AWAITING_DATA"

struct RankMember {
  WorkerId worker;
  Incarnation incarnation;
  friend bool operator==(const RankMember&, const RankMember&) = default;
};

// In seconds; the words of v1::StepTiming.
struct StepTiming {
  double run = 0;
  double collectives = 0;
  double commit_call = 0;
  friend bool operator==(const StepTiming&, const StepTiming&) = default;
};

// What a numbered action answers, and answers again. Scalars only.
struct StepAnswer {
  StepNumber number;
  GangEpoch epoch;
  std::optional<HostTensor> loss;
  std::vector<CollectiveCount> collectives;
  double seconds = 0;
  std::optional<double> gradient_norm;  // before clipping, where it was asked
  StepTiming timing = {};
  std::vector<int64_t> peak_run_bytes;   // by rank; empty where nothing ran
  std::vector<Timeline> timelines = {};  // by rank; where they were asked for
  friend bool operator==(const StepAnswer&, const StepAnswer&) = default;
};

// How a gang is after one of its calls has failed.
enum class GangHealth {
  kIntact,  // all ranks are there and in step
  kBroken,  // its collectives are ended; the gang is of no more use
};

// ----------------------------------------------------------------- events
struct GangFormed {};
struct MaterializeRequested {};
struct MaterializeDone {};
// How a numbered action reaches the ranks.
enum class StepKind {
  kTrain,          // one message: they run, agree and commit by themselves
  kNormAndCommit,  // an update that is clipped: a run of the norm, a commit
  kCommit,         // nothing but a commit
};
struct StepRequested {
  StepNumber number;
  std::string digest;  // of the whole request
  StepKind kind = StepKind::kTrain;
};
struct RunDone {};  // of a kNormAndCommit
// All ranks have committed the oldest step under way.
struct CommitDone {
  StepAnswer answer;
};
// A call to ranks failed: `rank` is the culprit.
struct CallFailed {
  int rank = 0;
  absl::Status status;
  GangHealth health = GangHealth::kIntact;
  StepNumber step = {};  // whose call it was; 0: no step's
};
// A worker has left, whatever was going on.
struct WorkerGone {
  int rank = 0;
  std::string reason;  // "worker w2 is LOST: its lease ran out"
};
struct DeleteRequested {};

using DeploymentEvent =
    std::variant<GangFormed, MaterializeRequested, MaterializeDone,
                 StepRequested, RunDone, CommitDone, CallFailed, WorkerGone,
                 DeleteRequested>;

// ---------------------------------------------------------------- actions
struct Materialize {
  friend bool operator==(const Materialize&, const Materialize&) = default;
};
struct Train {  // a step for all ranks to run, agree on and commit
  friend bool operator==(const Train&, const Train&) = default;
};
struct Run {  // the norm
  friend bool operator==(const Run&, const Run&) = default;
};
struct Commit {
  friend bool operator==(const Commit&, const Commit&) = default;
};
struct Abandon {  // discard what Run left pending
  friend bool operator==(const Abandon&, const Abandon&) = default;
};
struct AwaitStep {  // the same step is under way: ask again when it is over
  friend bool operator==(const AwaitStep&, const AwaitStep&) = default;
};
struct GiveAnswer {  // the recorded one; nothing runs
  StepAnswer answer;
  friend bool operator==(const GiveAnswer&, const GiveAnswer&) = default;
};
struct AbortPeers {  // end the collectives of all ranks
  std::string reason;
  friend bool operator==(const AbortPeers&, const AbortPeers&) = default;
};
struct Leave {  // all ranks leave the gang, and are free
  friend bool operator==(const Leave&, const Leave&) = default;
};

using DeploymentAction = std::variant<Materialize, Train, Run, Commit, Abandon,
                                      AwaitStep, GiveAnswer, AbortPeers, Leave>;

// The answers of this many steps can be read back, and repeated steps get them.
inline constexpr size_t kKeptAnswers = 64;
// Training steps under way. Not more than answers are kept, so that a client
// that was cut off can repeat all that it has not heard of.
inline constexpr size_t kMaxStepsUnderWay = 64;

// Owned and guarded by the coordinator's entry of the deployment, which carries
// actions out and sends the outcome as the next event.
//
//   READY, last step 4: StepRequested{5} -> {Train}; CommitDone -> {}, last
//   step 5; StepRequested{5} again -> {GiveAnswer};
//   StepRequested{7} -> ABORTED "expected: 6, got: 7"
//
// Training steps are pipelined: while some are under way the next one is
// accepted, and their outcomes (CommitDone, CallFailed) come in the order of
// their numbers. When one fails and the gang is intact, the ranks have applied
// neither it nor, by their numbers, any behind it: all are dropped, and the
// failed one's number is the next again.
//
//   StepRequested{5}, {6}, {7}; CommitDone{5}; CallFailed -> 6 and 7 are
//   dropped, last step 5, the next one is 6
//
// What else may meet steps under way: WorkerGone, CallFailed with a broken gang
// and DeleteRequested, at any time: no further step is accepted, while one that
// all ranks have committed still counts. All other actions (kNormAndCommit,
// kCommit, forward, reads, programs) run alone: the driver lets them wait until
// nothing is under way (ActionQueue), and such a StepRequested is refused
// (DEPLOYMENT_BUSY) before.
class DeploymentState {
 public:
  DeploymentState(DeploymentId id, GangEpoch epoch,
                  std::vector<RankMember> members, absl::Time now);

  // Aborted: a step number out of turn, or one that was used with another
  // digest (metadata "expected"). FailedPrecondition: not now; FAILED (the
  // message names worker and rank); NotFound: DELETED. ResourceExhausted:
  // kMaxStepsUnderWay. A refused event changes nothing.
  absl::StatusOr<std::vector<DeploymentAction>> Apply(
      const DeploymentEvent& event, absl::Time now);

  // FailedPrecondition or NotFound, as above, unless parameters are there.
  absl::Status CheckReady(absl::string_view what) const;
  // The same unless parameters may be uploaded and materialized.
  absl::Status CheckMaterializable() const;
  // The answer that was recorded for this number, or nullopt for the next
  // number and for one that is under way. Errors as of StepRequested.
  absl::StatusOr<std::optional<StepAnswer>> CheckTurn(
      StepNumber number, absl::string_view digest) const;
  bool IsUnderWay(StepNumber number) const;
  // Whether the next outcome is this step's.
  bool IsOldestUnderWay(StepNumber number) const;
  // How often steps were dropped. A step that was accepted before the last time
  // is over; its number may since be another's.
  uint64_t drops() const { return drops_; }
  size_t steps_under_way() const { return under_way_.size(); }
  // What a step that was dropped behind a failed one is told.
  absl::Status Dropped(StepNumber number) const;
  // What an accepted step answered, in any phase. NotFound: it has not run.
  // OutOfRange: no longer kept (metadata "oldest").
  absl::StatusOr<StepAnswer> FindAnswer(StepNumber number) const;
  // The same unless the gang stands.
  absl::Status CheckAlive(absl::string_view what) const;
  // Aborted unless `epoch` is 0 or the gang's.
  absl::Status CheckEpoch(GangEpoch epoch) const;

  const DeploymentId& id() const { return id_; }
  GangEpoch epoch() const { return epoch_; }
  const std::vector<RankMember>& members() const { return members_; }
  DeploymentPhase phase() const { return phase_; }
  const std::string& reason() const { return reason_; }
  StepNumber last_step() const { return last_step_; }
  // The last step, were all under way to succeed.
  StepNumber last_accepted() const {
    return under_way_.empty() ? last_step_ : under_way_.back().number;
  }
  absl::Time create_time() const { return create_time_; }
  absl::Time update_time() const { return update_time_; }
  // Changes with every change of the resource.
  std::string etag() const;

 private:
  using Actions = std::vector<DeploymentAction>;
  struct UnderWay {
    StepNumber number;
    std::string digest;
    StepKind kind = StepKind::kTrain;
  };
  struct Kept {
    std::string digest;
    StepAnswer answer;
  };

  absl::StatusOr<Actions> On(const GangFormed& event, absl::Time now);
  absl::StatusOr<Actions> On(const MaterializeRequested& event, absl::Time now);
  absl::StatusOr<Actions> On(const MaterializeDone& event, absl::Time now);
  absl::StatusOr<Actions> On(const StepRequested& event, absl::Time now);
  absl::StatusOr<Actions> On(const RunDone& event, absl::Time now);
  absl::StatusOr<Actions> On(const CommitDone& event, absl::Time now);
  absl::StatusOr<Actions> On(const CallFailed& event, absl::Time now);
  absl::StatusOr<Actions> On(const WorkerGone& event, absl::Time now);
  absl::StatusOr<Actions> On(const DeleteRequested& event, absl::Time now);

  Actions Fail(std::string reason, absl::Time now);
  void Enter(DeploymentPhase phase, std::string reason, absl::Time now);
  void Touch(absl::Time now);
  absl::Status OutOfTurn(StepNumber got, absl::string_view why) const;
  absl::Status CheckRoom(StepKind kind) const;

  DeploymentId id_;
  GangEpoch epoch_;
  std::vector<RankMember> members_;
  DeploymentPhase phase_ = DeploymentPhase::kForming;
  std::string reason_;
  absl::Time create_time_;
  absl::Time update_time_;
  uint64_t revision_ = 1;

  StepNumber last_step_;
  std::deque<Kept> kept_;           // the last steps, oldest first
  std::deque<UnderWay> under_way_;  // numbers follow one another
  uint64_t drops_ = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DEPLOYMENT_STATE_H_
