// Training steps of which several are under way.
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/fake_worker.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Begun = absl::StatusOr<std::unique_ptr<TrainUnderWay>>;

class CoordinatorTrainTest : public CoordinatorTest {
 protected:
  Begun Begin(uint64_t number, const std::string& digest = "body",
              const CallContext& context = {}) {
    return coordinator_->BeginTrain(TrainCall(number, digest), context);
  }
  absl::StatusOr<StepAnswer> Finish(Begun& begun) {
    return coordinator_->FinishTrain(*std::move(begun));
  }
  absl::StatusOr<StepAnswer> Update(uint64_t number) {
    StepCall call = TrainCall(number);
    call.action = UpdateAction{{SgdOptions{.lr = 1}}};
    return coordinator_->Step(call, {});
  }
  StepNumber LastStep() { return coordinator_->GetDeployment(id_)->last_step; }
  void FailNextOnAll(int ranks, Method method) {
    for (int rank = 0; rank < ranks; ++rank) {
      cluster_.worker(absl::StrCat("w", rank)).FailNext(method, Refusal());
    }
  }
};

const auto kAnswered = [](uint64_t number) {
  return IsOkAndHolds(
      ::testing::Field(&StepAnswer::number, StepNumber{number}));
};
const auto kExpects = [](const std::string& number) {
  return AllOf(HasReason("STEP_OUT_OF_TURN"), HasMetadata("expected", number));
};

TEST_F(CoordinatorTrainTest, StepsAreSentBeforeEarlierOnesAreOver) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w0").Hold(Method::kStep);
  Begun first = Begin(1);
  Begun second = Begin(2);
  Begun third = Begin(3);
  cluster_.worker("w0").WaitForCalls(Method::kStep, 3);
  EXPECT_EQ(LastStep(), StepNumber{0});
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), kAnswered(1));
  EXPECT_EQ(LastStep(), StepNumber{1});
  EXPECT_THAT(Finish(second), kAnswered(2));
  EXPECT_THAT(Finish(third), kAnswered(3));
  std::vector<uint64_t> steps;
  for (const RunCall& run : cluster_.worker("w1").runs()) {
    steps.push_back(run.random_step.value);
  }
  EXPECT_THAT(steps, ElementsAre(1, 2, 3));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kCommit), 0);
}

TEST_F(CoordinatorTrainTest, StepTellsTheSlowestRanksTimes) {
  AddWorkers(2);
  Deploy(2);
  const auto answer = Train(1);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->timing.run, 0.25);
  EXPECT_EQ(answer->timing.commit_call, 0.125);
}

TEST_F(CoordinatorTrainTest, NumbersMustFollowThoseUnderWay) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  Begun first = Begin(1);
  EXPECT_THAT(Begin(3), kExpects("2"));
  EXPECT_THAT(Begin(1, "another body"), kExpects("2"));
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), IsOk());
}

TEST_F(CoordinatorTrainTest, StepThatFailsTakesThoseBehindItAlong) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w1").Hold(Method::kStep);
  Begun steps[] = {Begin(1), Begin(2), Begin(3)};
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  cluster_.worker("w1").FailNext(Method::kStep, PeerFailed());
  cluster_.worker("w0").Release(Method::kStep);
  cluster_.worker("w1").Release(Method::kStep);
  EXPECT_THAT(Finish(steps[0]), StatusIs(absl::StatusCode::kInternal,
                                         HasSubstr("worker w0 (rank 0)")));
  // The number is free at once; what was dropped is told so later.
  Begun again = Begin(1, "another body");
  Begun next = Begin(2, "another body");
  EXPECT_THAT(Finish(steps[1]), kExpects("3"));
  EXPECT_THAT(Finish(steps[2]), kExpects("3"));
  EXPECT_THAT(Finish(again), kAnswered(1));
  EXPECT_THAT(Finish(next), kAnswered(2));
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
  EXPECT_THAT(cluster_.worker("w1").commits(), SizeIs(2));
}

TEST_F(CoordinatorTrainTest, RepeatedStepsAreAnsweredNotRepeated) {
  AddWorkers(1);
  Deploy(1);
  const auto first = Train(1);
  const auto second = Train(2);
  cluster_.worker("w0").Hold(Method::kStep);
  Begun third = Begin(3);
  Begun again = Begin(1);
  EXPECT_THAT(Finish(again), IsOkAndHolds(*first));
  again = Begin(2);
  EXPECT_THAT(Finish(again), IsOkAndHolds(*second));
  EXPECT_THAT(Begin(3, "body", {.deadline = absl::InfinitePast()}),
              HasReason("DEPLOYMENT_BUSY"));
  absl::StatusOr<StepAnswer> twin;
  std::thread waiter([&] { twin = Train(3); });
  cluster_.worker("w0").Release(Method::kStep);
  const auto answer = Finish(third);
  waiter.join();
  EXPECT_THAT(answer, kAnswered(3));
  EXPECT_THAT(twin, IsOkAndHolds(*answer));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 3);
}

TEST_F(CoordinatorTrainTest, TwinOfAStepThatFailsRunsAnew) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  Begun first = Begin(1);
  absl::StatusOr<StepAnswer> twin;
  std::thread waiter([&] { twin = Train(1); });
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), HasReason("BOOM"));
  waiter.join();
  EXPECT_THAT(twin, kAnswered(1));
}

TEST_F(CoordinatorTrainTest, StepsThatUsedUploadsAreKnownAgain) {
  AddWorkers(1);
  Deploy(1);
  StepCall call = TrainCall(1);
  std::get<TrainAction>(call.action).inputs = {UploadedTensor{MlpInput(), "x"}};
  ASSERT_THAT(UploadInput("x"), IsOk());
  const auto first = coordinator_->Step(call, {});
  for (uint64_t number = 2; number <= kKeptAnswers; ++number) {
    ASSERT_THAT(Train(number), IsOk());
  }
  EXPECT_THAT(coordinator_->Step(call, {}), IsOkAndHolds(*first));
  ASSERT_THAT(Train(kKeptAnswers + 1), IsOk());
  EXPECT_THAT(coordinator_->Step(call, {}), HasReason("STEP_OUT_OF_TURN"));
}

// An upload is taken by the step that is accepted first.
TEST_F(CoordinatorTrainTest, UploadsAreUsedByOneStepUnderWay) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(UploadInput("x"), IsOk());
  cluster_.worker("w0").Hold(Method::kStep);
  StepCall call = TrainCall(1);
  std::get<TrainAction>(call.action).inputs = {UploadedTensor{MlpInput(), "x"}};
  Begun first = coordinator_->BeginTrain(call, {});
  call.number = StepNumber{2};
  EXPECT_THAT(coordinator_->BeginTrain(call, {}),
              HasReason("UPLOAD_NOT_FOUND"));
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), IsOk());
}

TEST_F(CoordinatorTrainTest, OtherActionsWaitUntilNothingIsUnderWay) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  Begun first = Begin(1);
  Begun second = Begin(2);
  const CallContext now{.deadline = absl::InfinitePast()};
  const auto busy = HasReason("DEPLOYMENT_BUSY");
  EXPECT_THAT(coordinator_->Forward({.deployment = id_,
                                     .program = {id_, program_},
                                     .inputs = {Zeros(MlpInput())}},
                                    now),
              busy);
  EXPECT_THAT(
      coordinator_->Download(
          {.deployment = id_, .tensor = ParameterKey{"net1.bias"}}, now),
      busy);
  EXPECT_THAT(
      coordinator_->CreateProgram(id_, MlpSignature(WithLoss::kNo), false, now),
      busy);
  StepCall reset = TrainCall(3);
  reset.action = ResetOptimizerAction{};
  EXPECT_THAT(coordinator_->Step(reset, now), busy);
  absl::StatusOr<StepAnswer> updated;
  std::thread update([&] { updated = Update(3); });
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), IsOk());
  EXPECT_THAT(Finish(second), IsOk());
  update.join();
  EXPECT_THAT(updated, kAnswered(3));
}

TEST_F(CoordinatorTrainTest, OptimizersKindIsThatOfTheStepsUnderWay) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  StepCall adam = TrainCall(1);
  std::get<TrainAction>(adam.action).optimizer =
      OptimizerOptions{AdamOptions{}};
  Begun first = coordinator_->BeginTrain(adam, {});
  EXPECT_THAT(Begin(2), HasReason("OPTIMIZER_KIND_DIFFERS"));
  adam.number = StepNumber{2};
  Begun second = coordinator_->BeginTrain(adam, {});
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(first), HasReason("BOOM"));
  EXPECT_THAT(Finish(second), kExpects("1"));
  EXPECT_THAT(Train(1), IsOk());  // SGD: nothing of the other kind was applied
}

TEST_F(CoordinatorTrainTest, WorkerThatDiesUnderStepsFailsThemAll) {
  AddWorkers(3);
  Deploy(3);
  for (const char* id : {"w0", "w1", "w2"}) {
    cluster_.worker(id).Hold(Method::kStep);
  }
  Begun steps[] = {Begin(1), Begin(2), Begin(3)};
  cluster_.worker("w1").Die();
  EXPECT_THAT(Finish(steps[0]),
              AllOf(StatusIs(absl::StatusCode::kUnavailable,
                             HasSubstr("worker w1 (rank 1) is gone")),
                    HasReason("WORKER_LOST")));
  for (Begun* late : {&steps[1], &steps[2]}) {
    EXPECT_THAT(Finish(*late),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("w1")));
  }
  // One Abort a rank, not one a step.
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kAbort), 1);
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
  EXPECT_THAT(Begin(1), HasReason("DEPLOYMENT_FAILED"));
}

TEST_F(CoordinatorTrainTest, RankThatNeverAnswersEndsItsStepsAfterGrace) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w0").Freeze();
  cluster_.worker("w1").FailNext(Method::kStep, Refusal());
  Begun steps[] = {Begin(1), Begin(2)};
  EXPECT_THAT(Finish(steps[0]), StatusIs(absl::StatusCode::kInternal,
                                         HasSubstr("worker w1 (rank 1)")));
  EXPECT_FALSE(Finish(steps[1]).ok());
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

TEST_F(CoordinatorTrainTest, DeletedDeploymentEndsItsSteps) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  Begun steps[] = {Begin(1), Begin(2)};
  EXPECT_THAT(coordinator_->DeleteDeployment({.id = id_}), IsOk());
  for (Begun& step : steps) {
    EXPECT_THAT(Finish(step),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("deleted")));
  }
  Deploy(1);
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Train(1), IsOk());
}

// What runs a step that it ought to refuse is of no more use.
TEST_F(CoordinatorTrainTest, RankThatRunsADroppedStepFailsTheDeployment) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  Begun steps[] = {Begin(1), Begin(2)};
  cluster_.worker("w0").Forgive();
  cluster_.worker("w0").Release(Method::kStep);
  EXPECT_THAT(Finish(steps[0]), HasReason("BOOM"));
  EXPECT_THAT(Finish(steps[1]), StatusIs(absl::StatusCode::kInternal,
                                         HasSubstr("one that ran it")));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

// Numbers that the ranks and the coordinator do not agree on.
TEST_F(CoordinatorTrainTest, StepRefusedByItsNumberFailsTheDeployment) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").FailNext(
      Method::kStep, MakeError(absl::StatusCode::kAborted, "expected step 9",
                               {.reason = "STEP_OUT_OF_TURN"}));
  EXPECT_THAT(Train(1), HasReason("STEP_OUT_OF_TURN"));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

TEST_F(CoordinatorTrainTest, CallerThatHasGoneBeginsNothing) {
  AddWorkers(1);
  Deploy(1);
  EXPECT_THAT(Begin(1, "body", {.cancelled = [] { return true; }}),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("gone")));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 0);
}

}  // namespace
}  // namespace shardplane
