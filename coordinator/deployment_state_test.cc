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
CallFailed Failed(GangHealth health) { return {1, Refusal(), health}; }
StepAnswer AnswerOf(uint64_t number) {
  return {.number = StepNumber{number}, .epoch = GangEpoch{5}, .seconds = 0.5};
}
StepRequested StepOf(uint64_t number, const std::string& digest = "same") {
  return {StepNumber{number}, digest, true};
}

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
    return Do(StepOf(number, digest))
        .Do(RunDone{})
        .Do(CommitDone{AnswerOf(number)});
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
            "first step", kReady, StepOf(1), absl::StatusCode::kOk, {Run{}}},
        Transition{
            "step zero", kReady, StepOf(0), absl::StatusCode::kAborted, {}},
        Transition{"second step first",
                   kReady,
                   StepOf(2),
                   absl::StatusCode::kAborted,
                   {}},
        Transition{"step without a run",
                   kReady,
                   StepRequested{StepNumber{1}, "x", false},
                   absl::StatusCode::kOk,
                   {Commit{}}},
        Transition{"run done",
                   After(kReady, StepOf(1)),
                   RunDone{},
                   absl::StatusCode::kOk,
                   {Commit{}}},
        Transition{"run fails on all",
                   After(kReady, StepOf(1)),
                   Failed(GangHealth::kIntact),
                   absl::StatusCode::kOk,
                   {Abandon{}}},
        Transition{"run breaks the gang", After(kReady, StepOf(1)),
                   Failed(GangHealth::kBroken), absl::StatusCode::kOk, kBreak,
                   DeploymentPhase::kFailed},
        Transition{"commit fails on all",
                   After(After(kReady, StepOf(1)), RunDone{}),
                   Failed(GangHealth::kIntact),
                   absl::StatusCode::kOk,
                   {Abandon{}}},
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
        Transition{"run done after a worker went",
                   After(After(kReady, StepOf(1)), kGone),
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
        OutOfTurn{"long past", 1, "same",
                  "deployments/d: step 1 is out of turn; expected: 3, got: 1"},
        OutOfTurn{"zero", 0, "same",
                  "deployments/d: step 0 is out of turn; expected: 3, got: 0"},
        OutOfTurn{"last with another body", 2, "other",
                  "deployments/d: step 2 was another request; expected: 3, "
                  "got: 2"}),
    CaseName<OutOfTurn>);

TEST(DeploymentStateTest, FailedStepIsAppliedNowhereAndMayBeRepeated) {
  Life life;
  life.Ready().Step(1);
  life.Do(StepOf(2)).Do(Failed(GangHealth::kIntact));
  EXPECT_EQ(life.state().last_step(), StepNumber{1});
  EXPECT_THAT(life.Try(StepOf(2, "another body")),
              IsOkAndHolds(Actions{shardplane::Run{}}));
}

TEST(DeploymentStateTest, CommittedStepCountsThoughAWorkerWent) {
  Life life;
  life.Ready().Do(StepOf(1)).Do(RunDone{}).Do(kGone);
  life.Do(CommitDone{AnswerOf(1)});
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
