#include "coordinator/deployment_state.h"

#include <ostream>
#include <string>
#include <vector>

#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Actions = std::vector<DeploymentAction>;

const absl::Time kNow = absl::FromUnixSeconds(1000);

DeploymentState NewState() {
  return DeploymentState(
      DeploymentId{"d"}, GangEpoch{5},
      {{WorkerId{"w0"}, Incarnation{1}}, {WorkerId{"w1"}, Incarnation{2}}},
      kNow);
}

absl::Status Refusal() {
  return MakeError(absl::StatusCode::kInternal, "boom", {.reason = "BOOM"});
}
// A call of `step`, or of none.
CallFailed Failed(GangHealth health, uint64_t step = 0) {
  return {1, Refusal(), health, StepNumber{step}};
}
StepAnswer AnswerOf(uint64_t number) {
  return {.number = StepNumber{number}, .epoch = GangEpoch{5}, .seconds = 0.5};
}
StepRequested StepOf(uint64_t number, const std::string& digest = "same") {
  return {StepNumber{number}, digest, StepKind::kTrain};
}
StepRequested UpdateOf(uint64_t number,
                       StepKind kind = StepKind::kNormAndCommit) {
  return {StepNumber{number}, "same", kind};
}
CommitDone DoneOf(uint64_t number) { return {AnswerOf(number)}; }

// A state and what was done to it.
class Life {
 public:
  Life& Do(const DeploymentEvent& event) {
    const auto result = state_.Apply(event, kNow + absl::Seconds(1));
    EXPECT_TRUE(result.ok()) << result.status();
    return *this;
  }
  Life& Ready() {
    return Do(GangFormed{}).Do(MaterializeRequested{}).Do(MaterializeDone{});
  }
  Life& Step(uint64_t number, const std::string& digest = "same") {
    return Do(StepOf(number, digest)).Do(DoneOf(number));
  }
  absl::StatusOr<Actions> Try(const DeploymentEvent& event) {
    return state_.Apply(event, kNow + absl::Seconds(2));
  }
  DeploymentState& state() { return state_; }

 private:
  DeploymentState state_ = NewState();
};

// What each event does in each phase; `actions` empty and `code` OK: accepted
// without consequence.
struct Transition {
  std::string name;
  std::vector<DeploymentEvent> before;
  DeploymentEvent event;
  absl::StatusCode code = absl::StatusCode::kOk;
  Actions actions;
  DeploymentPhase phase = DeploymentPhase::kReady;
  friend void PrintTo(const Transition& c, std::ostream* out) {
    *out << c.name;
  }
};
class TransitionTest : public ::testing::TestWithParam<Transition> {};

TEST_P(TransitionTest, Holds) {
  const Transition& c = GetParam();
  Life life;
  for (const DeploymentEvent& event : c.before) {
    life.Do(event);
  }
  const std::string etag = life.state().etag();
  const DeploymentPhase phase = life.state().phase();
  const absl::StatusOr<Actions> actions = life.Try(c.event);
  EXPECT_EQ(actions.status().code(), c.code) << actions.status();
  if (actions.ok()) {
    EXPECT_EQ(*actions, c.actions);
  }
  EXPECT_EQ(life.state().phase(), c.phase);
  EXPECT_EQ(life.state().phase() == phase || life.state().etag() != etag, true);
}

const std::vector<DeploymentEvent> kFormed = {GangFormed{}};
const std::vector<DeploymentEvent> kMaterializing = {GangFormed{},
                                                     MaterializeRequested{}};
const std::vector<DeploymentEvent> kReady = {
    GangFormed{}, MaterializeRequested{}, MaterializeDone{}};
std::vector<DeploymentEvent> After(std::vector<DeploymentEvent> events,
                                   const DeploymentEvent& event) {
  events.push_back(event);
  return events;
}
// READY, and steps 1 to 3 are under way.
const std::vector<DeploymentEvent> kThree =
    After(After(After(kReady, StepOf(1)), StepOf(2)), StepOf(3));
const WorkerGone kGone{1, "worker w1 is LOST: its lease ran out"};
const Actions kEnd = {
    AbortPeers{"worker w1 is LOST: its lease ran out (rank 1)"}, Leave{}};
const Actions kBreak = {AbortPeers{"worker w1 (rank 1): boom"}, Leave{}};

INSTANTIATE_TEST_SUITE_P(
    All, TransitionTest,
    ::testing::Values(
        Transition{"forms",
                   {},
                   GangFormed{},
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kAwaitingData},
        Transition{
            "forming fails",
            {},
            Failed(GangHealth::kIntact),
            absl::StatusCode::kOk,
            {AbortPeers{"worker w1 (rank 1) did not join: boom"}, Leave{}},
            DeploymentPhase::kFailed},
        Transition{"worker gone while forming",
                   {},
                   kGone,
                   absl::StatusCode::kOk,
                   kEnd,
                   DeploymentPhase::kFailed},
        Transition{"formed after a worker went",
                   {kGone},
                   GangFormed{},
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"materialize while forming",
                   {},
                   MaterializeRequested{},
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kForming},
        Transition{"materialize",
                   kFormed,
                   MaterializeRequested{},
                   absl::StatusCode::kOk,
                   {Materialize{}},
                   DeploymentPhase::kMaterializing},
        Transition{"step before materialize",
                   kFormed,
                   StepOf(1),
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kAwaitingData},
        Transition{"materialize while materializing",
                   kMaterializing,
                   MaterializeRequested{},
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kMaterializing},
        Transition{"materialized",
                   kMaterializing,
                   MaterializeDone{},
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kReady},
        Transition{"materialize fails",
                   kMaterializing,
                   Failed(GangHealth::kIntact),
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kAwaitingData},
        Transition{"materialize breaks the gang", kMaterializing,
                   Failed(GangHealth::kBroken), absl::StatusCode::kOk, kBreak,
                   DeploymentPhase::kFailed},
        Transition{"materialize twice",
                   kReady,
                   MaterializeRequested{},
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kReady},
        Transition{
            "first step", kReady, StepOf(1), absl::StatusCode::kOk, {Train{}}},
        Transition{
            "step zero", kReady, StepOf(0), absl::StatusCode::kAborted, {}},
        Transition{"second step first",
                   kReady,
                   StepOf(2),
                   absl::StatusCode::kAborted,
                   {}},
        Transition{"action that only commits",
                   kReady,
                   UpdateOf(1, StepKind::kCommit),
                   absl::StatusCode::kOk,
                   {Commit{}}},
        Transition{"update that is clipped",
                   kReady,
                   UpdateOf(1),
                   absl::StatusCode::kOk,
                   {shardplane::Run{}}},
        Transition{"norm done",
                   After(kReady, UpdateOf(1)),
                   RunDone{},
                   absl::StatusCode::kOk,
                   {Commit{}}},
        Transition{"norm fails on all",
                   After(kReady, UpdateOf(1)),
                   Failed(GangHealth::kIntact, 1),
                   absl::StatusCode::kOk,
                   {Abandon{}}},
        Transition{"commit fails on all",
                   After(After(kReady, UpdateOf(1)), RunDone{}),
                   Failed(GangHealth::kIntact, 1),
                   absl::StatusCode::kOk,
                   {Abandon{}}},
        Transition{"step fails on all",
                   After(kReady, StepOf(1)),
                   Failed(GangHealth::kIntact, 1),
                   absl::StatusCode::kOk,
                   {}},
        Transition{"step breaks the gang", After(kReady, StepOf(1)),
                   Failed(GangHealth::kBroken, 1), absl::StatusCode::kOk,
                   kBreak, DeploymentPhase::kFailed},
        Transition{"next step while some are under way",
                   kThree,
                   StepOf(4),
                   absl::StatusCode::kOk,
                   {Train{}}},
        Transition{"step after the next while some are under way",
                   kThree,
                   StepOf(5),
                   absl::StatusCode::kAborted,
                   {}},
        Transition{"same step while it is under way",
                   kThree,
                   StepOf(2),
                   absl::StatusCode::kOk,
                   {AwaitStep{}}},
        Transition{"another body under a number under way",
                   kThree,
                   StepOf(2, "other"),
                   absl::StatusCode::kAborted,
                   {}},
        Transition{"same step when it is over, others are not",
                   After(kThree, DoneOf(1)),
                   StepOf(1),
                   absl::StatusCode::kOk,
                   {GiveAnswer{AnswerOf(1)}}},
        Transition{"update while steps are under way",
                   kThree,
                   UpdateOf(4),
                   absl::StatusCode::kFailedPrecondition,
                   {}},
        Transition{"commit while steps are under way",
                   kThree,
                   UpdateOf(4, StepKind::kCommit),
                   absl::StatusCode::kFailedPrecondition,
                   {}},
        Transition{"step while an update is under way",
                   After(kReady, UpdateOf(1)),
                   StepOf(2),
                   absl::StatusCode::kFailedPrecondition,
                   {}},
        Transition{"outcome out of order",
                   kThree,
                   DoneOf(2),
                   absl::StatusCode::kInternal,
                   {}},
        Transition{"call of no step fails while some are under way",
                   kThree,
                   Failed(GangHealth::kIntact),
                   absl::StatusCode::kOk,
                   {}},
        Transition{"call of no step breaks the gang under steps", kThree,
                   Failed(GangHealth::kBroken), absl::StatusCode::kOk, kBreak,
                   DeploymentPhase::kFailed},
        Transition{"worker gone under steps", kThree, kGone,
                   absl::StatusCode::kOk, kEnd, DeploymentPhase::kFailed},
        Transition{"next step after a worker went under steps",
                   After(kThree, kGone),
                   StepOf(4),
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"step committed though a worker went under steps",
                   After(kThree, kGone),
                   DoneOf(1),
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"delete under steps",
                   kThree,
                   DeleteRequested{},
                   absl::StatusCode::kOk,
                   {AbortPeers{"the deployment is deleted"}, Leave{}},
                   DeploymentPhase::kDeleted},
        Transition{"step committed though it was deleted under it",
                   After(kThree, DeleteRequested{}),
                   DoneOf(1),
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kDeleted},
        Transition{"a read fails",
                   kReady,
                   Failed(GangHealth::kIntact),
                   absl::StatusCode::kOk,
                   {}},
        Transition{"worker gone when ready", kReady, kGone,
                   absl::StatusCode::kOk, kEnd, DeploymentPhase::kFailed},
        Transition{"second worker gone",
                   After(kReady, kGone),
                   WorkerGone{0, "x"},
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"call fails after a worker went",
                   After(kReady, kGone),
                   Failed(GangHealth::kBroken),
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"norm done after a worker went",
                   After(After(kReady, UpdateOf(1)), kGone),
                   RunDone{},
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"step when failed",
                   After(kReady, kGone),
                   StepOf(1),
                   absl::StatusCode::kFailedPrecondition,
                   {},
                   DeploymentPhase::kFailed},
        Transition{"delete when ready",
                   kReady,
                   DeleteRequested{},
                   absl::StatusCode::kOk,
                   {AbortPeers{"the deployment is deleted"}, Leave{}},
                   DeploymentPhase::kDeleted},
        Transition{"delete when failed",
                   After(kReady, kGone),
                   DeleteRequested{},
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kDeleted},
        Transition{"step when deleted",
                   After(kReady, DeleteRequested{}),
                   StepOf(1),
                   absl::StatusCode::kNotFound,
                   {},
                   DeploymentPhase::kDeleted},
        Transition{"worker gone when deleted",
                   After(kReady, DeleteRequested{}),
                   kGone,
                   absl::StatusCode::kOk,
                   {},
                   DeploymentPhase::kDeleted}),
    CaseName<Transition>);

TEST(DeploymentStateTest, SameNumberAndDigestGetsTheRecordedAnswer) {
  Life life;
  life.Ready().Step(1).Step(2, "second");
  EXPECT_THAT(life.Try(StepOf(2, "second")),
              IsOkAndHolds(Actions{GiveAnswer{AnswerOf(2)}}));
  EXPECT_THAT(life.state().CheckTurn(StepNumber{2}, "second"),
              IsOkAndHolds(AnswerOf(2)));
  EXPECT_EQ(life.state().last_step(), StepNumber{2});
}

TEST(DeploymentStateTest, RepeatedStepsGetTheAnswersThatAreKept) {
  Life life;
  life.Ready();
  for (uint64_t number = 1; number <= kKeptAnswers + 1; ++number) {
    life.Step(number);
  }
  life.Do(StepOf(66)).Do(StepOf(67));
  for (uint64_t number = 2; number <= kKeptAnswers + 1; ++number) {
    EXPECT_THAT(life.Try(StepOf(number)),
                IsOkAndHolds(Actions{GiveAnswer{AnswerOf(number)}}));
    EXPECT_THAT(life.Try(StepOf(number, "other")),
                AllOf(StatusIs(absl::StatusCode::kAborted,
                               HasSubstr("was another request")),
                      HasMetadata("expected", "68")));
  }
  EXPECT_THAT(life.Try(StepOf(1)), StatusIs(absl::StatusCode::kAborted,
                                            HasSubstr("is out of turn")));
}

TEST(DeploymentStateTest, StepsUnderWayAreBounded) {
  Life life;
  life.Ready();
  for (uint64_t number = 1; number <= kMaxStepsUnderWay; ++number) {
    life.Do(StepOf(number));
  }
  EXPECT_THAT(life.Try(StepOf(kMaxStepsUnderWay + 1)),
              HasReason("TOO_MANY_STEPS"));
  EXPECT_EQ(life.state().steps_under_way(), kMaxStepsUnderWay);
  life.Do(DoneOf(1));
  EXPECT_THAT(life.Try(StepOf(kMaxStepsUnderWay + 1)), IsOk());
}

TEST(DeploymentStateTest, StepThatFailsTakesThoseBehindItAlong) {
  Life life;
  life.Ready().Do(StepOf(1)).Do(StepOf(2)).Do(StepOf(3)).Do(StepOf(4));
  life.Do(DoneOf(1));
  const uint64_t drops = life.state().drops();
  life.Do(Failed(GangHealth::kIntact, 2));
  EXPECT_EQ(life.state().drops(), drops + 1);
  EXPECT_EQ(life.state().steps_under_way(), 0u);
  EXPECT_EQ(life.state().last_step(), StepNumber{1});
  EXPECT_FALSE(life.state().IsUnderWay(StepNumber{3}));
  EXPECT_THAT(
      life.state().Dropped(StepNumber{3}),
      AllOf(StatusIs(absl::StatusCode::kAborted,
                     "deployments/d: step 3 was behind one that has failed; "
                     "expected: 2, got: 3"),
            HasReason("STEP_OUT_OF_TURN"), HasMetadata("expected", "2")));
  // Late word of those that were dropped is no word of their numbers' next.
  life.Do(StepOf(2, "another")).Do(StepOf(3, "another"));
  life.Do(Failed(GangHealth::kIntact, 4));
  EXPECT_EQ(life.state().last_accepted(), StepNumber{3});
  EXPECT_EQ(life.state().drops(), drops + 1);
}

TEST(DeploymentStateTest, NextNumberCountsThoseUnderWay) {
  Life life;
  life.Ready().Step(1).Do(StepOf(2)).Do(StepOf(3));
  EXPECT_EQ(life.state().last_step(), StepNumber{1});
  EXPECT_EQ(life.state().last_accepted(), StepNumber{3});
  EXPECT_TRUE(life.state().IsOldestUnderWay(StepNumber{2}));
  EXPECT_FALSE(life.state().IsOldestUnderWay(StepNumber{3}));
  EXPECT_TRUE(life.state().IsUnderWay(StepNumber{3}));
  EXPECT_FALSE(life.state().IsUnderWay(StepNumber{4}));
  EXPECT_THAT(life.Try(StepOf(5)), HasMetadata("expected", "4"));
}

TEST(DeploymentStateTest, LastAnswersCanBeReadBack) {
  Life life;
  life.Ready();
  for (uint64_t number = 1; number <= kKeptAnswers + 1; ++number) {
    life.Step(number);
  }
  life.Do(StepOf(66)).Do(kGone);  // one under way has no answer yet
  for (uint64_t number = 2; number <= kKeptAnswers + 1; ++number) {
    EXPECT_THAT(life.state().FindAnswer(StepNumber{number}),
                IsOkAndHolds(AnswerOf(number)));
  }
  EXPECT_THAT(life.state().FindAnswer(StepNumber{1}),
              AllOf(StatusIs(absl::StatusCode::kOutOfRange,
                             HasSubstr("2 to 65, got: deployments/d/steps/1")),
                    HasMetadata("oldest", "2")));
  for (const uint64_t number : {uint64_t{0}, uint64_t{66}}) {
    EXPECT_THAT(life.state().FindAnswer(StepNumber{number}),
                AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("65")),
                      HasReason("STEP_NOT_FOUND")));
  }
}

struct OutOfTurn {
  std::string name;
  uint64_t number;
  std::string digest;
  std::string message;
  friend void PrintTo(const OutOfTurn& c, std::ostream* out) { *out << c.name; }
};
class OutOfTurnTest : public ::testing::TestWithParam<OutOfTurn> {};
TEST_P(OutOfTurnTest, IsAbortedAndNamesTheExpected) {
  Life life;
  life.Ready().Step(1).Step(2);
  const std::string etag = life.state().etag();
  EXPECT_THAT(
      life.Try(StepOf(GetParam().number, GetParam().digest)),
      AllOf(StatusIs(absl::StatusCode::kAborted, GetParam().message),
            HasReason("STEP_OUT_OF_TURN"), HasMetadata("expected", "3")));
  EXPECT_EQ(life.state().etag(), etag);
}
INSTANTIATE_TEST_SUITE_P(
    All, OutOfTurnTest,
    ::testing::Values(
        OutOfTurn{"too far", 4, "same",
                  "deployments/d: step 4 is out of turn; expected: 3, got: 4"},
        OutOfTurn{"one before the last with another body", 1, "other",
                  "deployments/d: step 1 was another request; expected: 3, "
                  "got: 1"},
        OutOfTurn{"zero", 0, "same",
                  "deployments/d: step 0 is out of turn; expected: 3, got: 0"},
        OutOfTurn{"last with another body", 2, "other",
                  "deployments/d: step 2 was another request; expected: 3, "
                  "got: 2"}),
    CaseName<OutOfTurn>);

TEST(DeploymentStateTest, FailedStepIsAppliedNowhereAndMayBeRepeated) {
  Life life;
  life.Ready().Step(1);
  life.Do(StepOf(2)).Do(Failed(GangHealth::kIntact, 2));
  EXPECT_EQ(life.state().last_step(), StepNumber{1});
  EXPECT_THAT(life.Try(StepOf(2, "another body")),
              IsOkAndHolds(Actions{Train{}}));
}

TEST(DeploymentStateTest, CommittedStepCountsThoughAWorkerWent) {
  Life life;
  life.Ready().Do(StepOf(1)).Do(kGone).Do(DoneOf(1));
  EXPECT_EQ(life.state().last_step(), StepNumber{1});
  EXPECT_EQ(life.state().phase(), DeploymentPhase::kFailed);
}

TEST(DeploymentStateTest, FailureNamesWorkerAndRank) {
  Life life;
  life.Ready().Do(kGone);
  EXPECT_THAT(
      life.state().CheckReady("step"),
      AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                     "step: deployments/d has FAILED: worker w1 is LOST: its "
                     "lease ran out (rank 1)"),
            HasReason("DEPLOYMENT_FAILED")));
}

TEST(DeploymentStateTest, EpochMustBeTheGangsOrNone) {
  DeploymentState state = NewState();
  EXPECT_THAT(state.CheckEpoch(GangEpoch{0}), IsOk());
  EXPECT_THAT(state.CheckEpoch(GangEpoch{5}), IsOk());
  EXPECT_THAT(state.CheckEpoch(GangEpoch{4}),
              AllOf(StatusIs(absl::StatusCode::kAborted, HasSubstr("got: 4")),
                    HasMetadata("expected", "5")));
}

TEST(DeploymentStateTest, EtagAndUpdateTimeFollowEveryChange) {
  Life life;
  const std::string first = life.state().etag();
  EXPECT_EQ(life.state().update_time(), kNow);
  life.Ready();
  const std::string ready = life.state().etag();
  EXPECT_NE(ready, first);
  EXPECT_EQ(life.state().update_time(), kNow + absl::Seconds(1));
  EXPECT_EQ(life.state().create_time(), kNow);
  life.Step(1);
  EXPECT_NE(life.state().etag(), ready);
}

}  // namespace
}  // namespace shardplane
