#include "coordinator/deployment_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

std::string MemberText(const RankMember& member, int rank) {
  return absl::StrCat("worker ", member.worker.value, " (rank ", rank, ")");
}

}  // namespace

std::string ToString(DeploymentPhase phase) {
  static constexpr const char* kNames[] = {
      "UNSPECIFIED", "FORMING", "AWAITING_DATA", "MATERIALIZING",
      "READY",       "FAILED",  "DELETED"};
  return kNames[static_cast<int>(phase)];
}

DeploymentState::DeploymentState(DeploymentId id, GangEpoch epoch,
                                 std::vector<RankMember> members,
                                 absl::Time now)
    : id_(std::move(id)),
      epoch_(epoch),
      members_(std::move(members)),
      reason_("its gang is being formed"),
      create_time_(now),
      update_time_(now) {}

absl::StatusOr<std::vector<DeploymentAction>> DeploymentState::Apply(
    const DeploymentEvent& event, absl::Time now) {
  return std::visit([&](const auto& e) { return On(e, now); }, event);
}

absl::Status DeploymentState::CheckAlive(absl::string_view what) const {
  if (phase_ == DeploymentPhase::kDeleted) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat(ResourceName(id_), " is not there"),
                     {.reason = "DEPLOYMENT_NOT_FOUND",
                      .metadata = {{"resource", ResourceName(id_)}}});
  }
  if (phase_ == DeploymentPhase::kFailed) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(what, ": ", ResourceName(id_), " has FAILED: ", reason_),
        {.reason = "DEPLOYMENT_FAILED",
         .metadata = {{"resource", ResourceName(id_)},
                      {"subject", ResourceName(id_)},
                      {"remedy", "delete it and create another"}}});
  }
  return absl::OkStatus();
}

absl::Status DeploymentState::CheckReady(absl::string_view what) const {
  SP_RETURN_IF_ERROR(CheckAlive(what));
  if (phase_ == DeploymentPhase::kReady) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat(what, ": ", ResourceName(id_),
                   " has no parameters yet: materialize it first; expected: "
                   "READY, got: ",
                   ToString(phase_)),
      {.reason = "DEPLOYMENT_NOT_READY",
       .metadata = {{"resource", ResourceName(id_)},
                    {"subject", ResourceName(id_)},
                    {"expected", "READY"},
                    {"remedy",
                     "upload the parameters and call "
                     "MaterializeDeployment"}}});
}

absl::Status DeploymentState::CheckEpoch(GangEpoch epoch) const {
  if (epoch.value == 0 || epoch == epoch_) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kAborted,
                   absl::StrCat(ResourceName(id_), ": expected epoch ",
                                epoch_.value, ", got: ", epoch.value),
                   {.reason = "EPOCH_STALE",
                    .metadata = {{"field", "epoch"},
                                 {"resource", ResourceName(id_)},
                                 {"expected", absl::StrCat(epoch_.value)}}});
}

std::string DeploymentState::etag() const {
  return absl::StrCat("\"", epoch_.value, "-", revision_, "\"");
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(const GangFormed&,
                                                             absl::Time now) {
  SP_RETURN_IF_ERROR(CheckAlive("form"));
  Enter(DeploymentPhase::kAwaitingData, "its parameters may be uploaded", now);
  return Actions{};
}

absl::Status DeploymentState::CheckMaterializable() const {
  SP_RETURN_IF_ERROR(CheckAlive("materialize"));
  if (phase_ == DeploymentPhase::kAwaitingData) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("materialize: ", ResourceName(id_),
                   ": expected: AWAITING_DATA, got: ", ToString(phase_)),
      {.reason = "DEPLOYMENT_NOT_AWAITING_DATA",
       .metadata = {{"resource", ResourceName(id_)},
                    {"subject", ResourceName(id_)},
                    {"expected", "AWAITING_DATA"}}});
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const MaterializeRequested&, absl::Time now) {
  SP_RETURN_IF_ERROR(CheckMaterializable());
  Enter(DeploymentPhase::kMaterializing, "its parameters are handed out", now);
  return Actions{Materialize{}};
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const MaterializeDone&, absl::Time now) {
  SP_RETURN_IF_ERROR(CheckAlive("materialize"));
  Enter(DeploymentPhase::kReady, "its parameters are in place", now);
  return Actions{};
}

absl::StatusOr<std::optional<StepAnswer>> DeploymentState::CheckTurn(
    StepNumber number, absl::string_view digest) const {
  SP_RETURN_IF_ERROR(CheckReady("step"));
  if (number.value == last_accepted().value + 1) {
    return std::nullopt;
  }
  if (IsUnderWay(number)) {
    const size_t index = number.value - under_way_.front().number.value;
    if (digest == under_way_[index].digest) {
      return std::nullopt;
    }
    return OutOfTurn(number, "is another request");
  }
  if (kept_.empty() || number < kept_.front().answer.number ||
      number > last_step_) {
    return OutOfTurn(number, "is out of turn");
  }
  const Kept& kept = kept_[number.value - kept_.front().answer.number.value];
  if (digest == kept.digest) {
    return kept.answer;
  }
  return OutOfTurn(number, "was another request");
}

bool DeploymentState::IsUnderWay(StepNumber number) const {
  return !under_way_.empty() && number >= under_way_.front().number &&
         number <= under_way_.back().number;
}

bool DeploymentState::IsOldestUnderWay(StepNumber number) const {
  return !under_way_.empty() && number == under_way_.front().number;
}

absl::Status DeploymentState::Dropped(StepNumber number) const {
  return OutOfTurn(number, "was behind one that has failed");
}

absl::StatusOr<StepAnswer> DeploymentState::FindAnswer(
    StepNumber number) const {
  const std::string name = ResourceName(id_, number);
  if (number.value == 0 || number > last_step_) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat("expected a step that has run, 1 to ", last_step_.value,
                     ", got: ", name),
        {.reason = "STEP_NOT_FOUND",
         .metadata = {{"resource", name},
                      {"last_step", absl::StrCat(last_step_.value)}}});
  }
  const StepNumber oldest = kept_.front().answer.number;
  if (number < oldest) {
    return MakeError(
        absl::StatusCode::kOutOfRange,
        absl::StrCat("expected a step whose answer is still kept, ",
                     oldest.value, " to ", last_step_.value, ", got: ", name),
        {.reason = "STEP_NO_LONGER_KEPT",
         .metadata = {{"resource", name},
                      {"oldest", absl::StrCat(oldest.value)}}});
  }
  return kept_[number.value - oldest.value].answer;
}

// Whether an action of that kind may begin now.
absl::Status DeploymentState::CheckRoom(StepKind kind) const {
  const bool alone =
      kind != StepKind::kTrain ||
      (!under_way_.empty() && under_way_.front().kind != StepKind::kTrain);
  if (alone && !under_way_.empty()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(ResourceName(id_),
                     ": expected no step under way, got: ", under_way_.size()),
        {.reason = "DEPLOYMENT_BUSY",
         .metadata = {{"resource", ResourceName(id_)}}});
  }
  if (under_way_.size() >= kMaxStepsUnderWay) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(ResourceName(id_), ": expected at most ",
                     kMaxStepsUnderWay, " steps under way, got: one more"),
        {.reason = "TOO_MANY_STEPS",
         .metadata = {{"resource", ResourceName(id_)}, {"retry_ms", "1000"}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const StepRequested& event, absl::Time) {
  SP_ASSIGN_OR_RETURN(const std::optional<StepAnswer> recorded,
                      CheckTurn(event.number, event.digest));
  if (recorded.has_value()) {
    return Actions{GiveAnswer{*recorded}};
  }
  if (IsUnderWay(event.number)) {
    return Actions{AwaitStep{}};
  }
  SP_RETURN_IF_ERROR(CheckRoom(event.kind));
  under_way_.push_back({event.number, event.digest, event.kind});
  return event.kind == StepKind::kTrain           ? Actions{Train{}}
         : event.kind == StepKind::kNormAndCommit ? Actions{Run{}}
                                                  : Actions{Commit{}};
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(const RunDone&,
                                                             absl::Time) {
  SP_RETURN_IF_ERROR(CheckAlive("step"));
  return Actions{Commit{}};
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const CommitDone& event, absl::Time now) {
  // Every rank has committed: that holds even if a worker has left since, but
  // a FAILED deployment answers no further calls, this one excepted.
  if (!IsOldestUnderWay(event.answer.number)) {
    return absl::InternalError(
        absl::StrCat("committed: expected the oldest step under way, got: ",
                     event.answer.number.value));
  }
  last_step_ = event.answer.number;
  kept_.push_back({std::move(under_way_.front().digest), event.answer});
  under_way_.pop_front();
  if (kept_.size() > kKeptAnswers) {
    kept_.pop_front();
  }
  Touch(now);
  return Actions{};
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const CallFailed& event, absl::Time now) {
  std::deque<UnderWay> dropped;
  if (IsOldestUnderWay(event.step)) {
    // Those behind it follow a number that was not committed: the ranks refuse
    // them.
    dropped.swap(under_way_);
    ++drops_;
  }
  SP_RETURN_IF_ERROR(CheckAlive("the call"));
  if (event.health == GangHealth::kBroken) {
    return Fail(absl::StrCat(MemberText(members_[event.rank], event.rank), ": ",
                             event.status.message()),
                now);
  }
  if (phase_ == DeploymentPhase::kMaterializing) {
    Enter(DeploymentPhase::kAwaitingData,
          absl::StrCat("materializing failed: ", event.status.message()), now);
  }
  if (phase_ == DeploymentPhase::kForming) {
    return Fail(absl::StrCat(MemberText(members_[event.rank], event.rank),
                             " did not join: ", event.status.message()),
                now);
  }
  // Ranks discard a training step by themselves.
  return dropped.empty() || dropped.front().kind == StepKind::kTrain
             ? Actions{}
             : Actions{Abandon{}};
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const WorkerGone& event, absl::Time now) {
  if (!CheckAlive("").ok()) {
    return Actions{};
  }
  return Fail(absl::StrCat(event.reason, " (rank ", event.rank, ")"), now);
}

absl::StatusOr<DeploymentState::Actions> DeploymentState::On(
    const DeleteRequested&, absl::Time now) {
  const bool had_gang = phase_ != DeploymentPhase::kFailed;
  Enter(DeploymentPhase::kDeleted, "it was deleted", now);
  return had_gang ? Actions{AbortPeers{"the deployment is deleted"}, Leave{}}
                  : Actions{};
}

DeploymentState::Actions DeploymentState::Fail(std::string reason,
                                               absl::Time now) {
  Enter(DeploymentPhase::kFailed, std::move(reason), now);
  return Actions{AbortPeers{reason_}, Leave{}};
}

void DeploymentState::Enter(DeploymentPhase phase, std::string reason,
                            absl::Time now) {
  phase_ = phase;
  reason_ = std::move(reason);
  Touch(now);
}

void DeploymentState::Touch(absl::Time now) {
  update_time_ = now;
  ++revision_;
}

absl::Status DeploymentState::OutOfTurn(StepNumber got,
                                        absl::string_view why) const {
  const uint64_t expected = last_accepted().value + 1;
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat(ResourceName(id_), ": step ", got.value, " ", why,
                   "; expected: ", expected, ", got: ", got.value),
      {.reason = "STEP_OUT_OF_TURN",
       .metadata = {{"field", "step"},
                    {"resource", ResourceName(id_)},
                    {"expected", absl::StrCat(expected)}}});
}

}  // namespace shardplane
