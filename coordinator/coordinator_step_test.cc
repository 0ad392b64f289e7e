#include "coordinator/coordinator.h"

#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/fake_worker.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// -------------------------------------------------------------- actions

TEST_F(CoordinatorTest, TrainRunsAndCommitsOnAllRanks) {
  AddWorkers(2);
  Deploy(2);
  const auto answer = Train(1);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->number, StepNumber{1});
  ASSERT_TRUE(answer->loss.has_value());
  EXPECT_EQ(ToString(answer->loss->type), "f32[]");
  EXPECT_THAT(answer->collectives,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 384}));
  for (const char* id : {"w0", "w1"}) {
    ASSERT_THAT(cluster_.worker(id).commits(), SizeIs(1));
    EXPECT_EQ(cluster_.worker(id).commits()[0].step, StepNumber{1});
    EXPECT_TRUE(cluster_.worker(id).commits()[0].optimizer.has_value());
    EXPECT_NE(cluster_.worker(id).runs()[0].expected_hash, 0u);
  }
  EXPECT_EQ(coordinator_->GetDeployment(id_)->last_step, StepNumber{1});
}

TEST_F(CoordinatorTest, RepeatedStepIsAnsweredNotRepeated) {
  AddWorkers(1);
  Deploy(1);
  const auto first = Train(1);
  EXPECT_THAT(Train(1), IsOkAndHolds(*first));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 1);
  EXPECT_THAT(Train(1, "another body"), AllOf(HasReason("STEP_OUT_OF_TURN"),
                                              HasMetadata("expected", "2")));
  EXPECT_THAT(Train(3), HasMetadata("expected", "2"));
  EXPECT_THAT(Train(2), IsOk());
}

TEST_F(CoordinatorTest, RepeatedStepWaitsForTheFirst) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Hold(Method::kStep);
  absl::StatusOr<StepAnswer> first;
  absl::StatusOr<StepAnswer> second;
  std::thread a([&] { first = Train(1); });
  cluster_.worker("w0").WaitUntilHeld(Method::kStep);
  std::thread b([&] { second = Train(1); });
  EXPECT_THAT(
      coordinator_->Step(TrainCall(1), {.deadline = absl::InfinitePast()}),
      StatusIs(absl::StatusCode::kDeadlineExceeded,
               HasSubstr("still running")));
  cluster_.worker("w0").Release(Method::kStep);
  a.join();
  b.join();
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(second, IsOkAndHolds(*first));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 1);
}

TEST_F(CoordinatorTest, CallerThatHasGoneRunsNothing) {
  AddWorkers(1);
  Deploy(1);
  EXPECT_THAT(
      coordinator_->Step(TrainCall(1), {.cancelled = [] { return true; }}),
      StatusIs(absl::StatusCode::kCancelled, HasSubstr("gone")));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 0);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, StepThatFailsOnAllRanksIsAppliedNowhere) {
  AddWorkers(2);
  Deploy(2);
  for (const char* id : {"w0", "w1"}) {
    cluster_.worker(id).FailNext(Method::kStep, Refusal());
  }
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kInternal,
                                 "worker w0 (rank 0): boom"));
  // The ranks discard by themselves.
  EXPECT_EQ(cluster_.worker("w1").calls(Method::kCommit), 0);
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
  EXPECT_THAT(Train(1, "another body"), IsOk());
}

// The others agree that they discard it; who has only heard of it is not to
// blame.
TEST_F(CoordinatorTest, StepThatFailsOnOneRankOfThreeIsAppliedNowhere) {
  AddWorkers(3);
  Deploy(3);
  cluster_.worker("w0").FailNext(Method::kStep, PeerFailed());
  cluster_.worker("w1").FailNext(Method::kStep, Refusal());
  cluster_.worker("w2").FailNext(Method::kStep, PeerFailed());
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kInternal,
                                 "worker w1 (rank 1): boom"));
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, RankThatFailsAloneAbortsThoseThatWait) {
  AddWorkers(3);
  Deploy(3);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w2").Hold(Method::kStep);
  cluster_.worker("w1").FailNext(Method::kStep, Refusal());
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kInternal,
                                 HasSubstr("worker w1 (rank 1): boom")));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kAbort), 1);
  EXPECT_EQ(cluster_.worker("w1").calls(Method::kAbort), 0);
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
  cluster_.worker("w0").Release(Method::kStep);
  cluster_.worker("w2").Release(Method::kStep);
  Deploy(3);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, RankThatObeysNoAbortIsCancelled) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w0").Freeze();
  cluster_.worker("w1").FailNext(Method::kStep, Refusal());
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kInternal,
                                 HasSubstr("worker w1 (rank 1)")));
}

struct OnSomeRanks {
  std::string name;
  Method method;
  StepAction action;
  friend void PrintTo(const OnSomeRanks& c, std::ostream* out) {
    *out << c.name;
  }
};
class OnSomeRanksTest : public CoordinatorTest,
                        public ::testing::WithParamInterface<OnSomeRanks> {
 protected:
  absl::StatusOr<StepAnswer> Act() {
    StepCall call = TrainCall(1);
    if (GetParam().method != Method::kStep) {
      call.action = GetParam().action;
    }
    return coordinator_->Step(call, {});
  }
};
TEST_P(OnSomeRanksTest, CommittedFailsTheDeployment) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w1").FailNext(GetParam().method, Refusal());
  EXPECT_THAT(Act(), StatusIs(absl::StatusCode::kInternal,
                              HasSubstr("worker w1 (rank 1)")));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}
TEST_P(OnSomeRanksTest, RefusedByAllLeavesTheNumber) {
  AddWorkers(2);
  Deploy(2);
  for (const char* id : {"w0", "w1"}) {
    cluster_.worker(id).FailNext(GetParam().method, Refusal());
  }
  EXPECT_THAT(Act(), Not(IsOk()));
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
  EXPECT_THAT(Act(), IsOk());
}
INSTANTIATE_TEST_SUITE_P(
    All, OnSomeRanksTest,
    ::testing::Values(OnSomeRanks{"train", Method::kStep, {}},
                      OnSomeRanks{"update", Method::kCommit,
                                  UpdateAction{{SgdOptions{.lr = 1}}}},
                      OnSomeRanks{"reset", Method::kCommit,
                                  ResetOptimizerAction{}}),
    CaseName<OnSomeRanks>);

TEST_F(CoordinatorTest, StepBeforeMaterializeIsRefused) {
  AddWorkers(1);
  const auto info = Create(1);
  id_ = info->id;
  EXPECT_THAT(Train(1), AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("got: AWAITING_DATA")),
                              HasReason("DEPLOYMENT_NOT_READY")));
  EXPECT_THAT(Forward({Zeros(MlpInput())}), HasReason("DEPLOYMENT_NOT_READY"));
}

TEST_F(CoordinatorTest, StaleEpochIsAborted) {
  AddWorkers(1);
  Deploy(1);
  StepCall call = TrainCall(1);
  call.epoch = GangEpoch{999};
  EXPECT_THAT(coordinator_->Step(call, {}),
              AllOf(StatusIs(absl::StatusCode::kAborted, HasSubstr("999")),
                    HasReason("EPOCH_STALE")));
}

TEST_F(CoordinatorTest, TrainNeedsAProgramWithALossOfItsOwn) {
  AddWorkers(1);
  Deploy(1);
  const auto plain =
      coordinator_->CreateProgram(id_, MlpSignature(WithLoss::kNo), false, {});
  StepCall call = TrainCall(1);
  std::get<TrainAction>(call.action).program.program = (*plain)->id;
  EXPECT_THAT(coordinator_->Step(call, {}), HasReason("PROGRAM_WITHOUT_LOSS"));
  std::get<TrainAction>(call.action).program.program = ProgramId{"p9"};
  EXPECT_THAT(
      coordinator_->Step(call, {}),
      AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("/programs/p9")),
            HasReason("PROGRAM_NOT_FOUND")));
  std::get<TrainAction>(call.action).program.deployment = DeploymentId{"e"};
  EXPECT_THAT(coordinator_->Step(call, {}),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("deployments/e/programs/p9")),
                    HasMetadata("field", "train.program")));
}

struct BadInputs {
  std::string name;
  std::vector<TensorSource> inputs;
  absl::StatusCode code;
  std::string message;
  friend void PrintTo(const BadInputs& c, std::ostream* out) { *out << c.name; }
};
class BadInputsTest : public CoordinatorTest,
                      public ::testing::WithParamInterface<BadInputs> {};
TEST_P(BadInputsTest, AreRefusedAndHarmNothing) {
  AddWorkers(1);
  Deploy(1);
  EXPECT_THAT(Forward(GetParam().inputs),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
  StepCall call = TrainCall(1);
  std::get<TrainAction>(call.action).inputs = GetParam().inputs;
  EXPECT_THAT(
      coordinator_->Step(call, {}),
      StatusIs(GetParam().code, HasSubstr("train." + GetParam().message)));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 0);
  EXPECT_THAT(Train(1), IsOk());
}
INSTANTIATE_TEST_SUITE_P(
    All, BadInputsTest,
    ::testing::Values(
        BadInputs{"none",
                  {},
                  absl::StatusCode::kInvalidArgument,
                  "inputs: expected 1 tensors, got: 0"},
        BadInputs{"two",
                  {Zeros(MlpInput()), Zeros(MlpInput())},
                  absl::StatusCode::kInvalidArgument,
                  "inputs: expected 1 tensors, got: 2"},
        BadInputs{"shape",
                  {Zeros({DType::kFloat32, {6, 11}})},
                  absl::StatusCode::kInvalidArgument,
                  "inputs[0]: expected f32[6, 10], got: f32[6, 11]"},
        BadInputs{"dtype",
                  {Zeros({DType::kInt64, {6, 10}})},
                  absl::StatusCode::kInvalidArgument,
                  "inputs[0]: expected f32[6, 10], got: i64[6, 10]"},
        BadInputs{"no upload",
                  {UploadedTensor{MlpInput(), "x"}},
                  absl::StatusCode::kNotFound,
                  "inputs[0]: expected an upload"}),
    CaseName<BadInputs>);

TEST_F(CoordinatorTest, ForwardGivesSmallOutputs) {
  AddWorkers(2);
  Deploy(2);
  const auto answer = Forward({Zeros(MlpInput())});
  ASSERT_THAT(answer, IsOk());
  ASSERT_THAT(answer->outputs, SizeIs(1));
  EXPECT_EQ(answer->outputs[0].type, MlpInput());
  EXPECT_EQ(answer->outputs[0].bytes->size(), 240u);
  EXPECT_EQ(coordinator_->GetDeployment(id_)->last_step, StepNumber{0});
  EXPECT_THAT(cluster_.worker("w0").commits(), IsEmpty());
}

TEST_F(CoordinatorTest, UploadIsUsedByOneCall) {
  AddWorkers(2);
  Deploy(2);
  ASSERT_THAT(UploadInput("x"), IsOk());
  EXPECT_THAT(cluster_.worker("w1").staged(), Contains("upload:x"));
  EXPECT_THAT(Forward({UploadedTensor{MlpInput(), "x"}}), IsOk());
  EXPECT_THAT(Forward({UploadedTensor{MlpInput(), "x"}}),
              HasReason("UPLOAD_NOT_FOUND"));
}

TEST_F(CoordinatorTest, StepIsKnownByTheContentsOfItsUploads) {
  AddWorkers(1);
  Deploy(1);
  StepCall call = TrainCall(1);
  std::get<TrainAction>(call.action).inputs = {UploadedTensor{MlpInput(), "x"}};
  ASSERT_THAT(UploadInput("x", MlpInput(), 1), IsOk());
  ASSERT_THAT(coordinator_->Step(call, {}), IsOk());
  EXPECT_THAT(coordinator_->Step(call, {}), IsOk());
  ASSERT_THAT(UploadInput("x", MlpInput(), 2), IsOk());
  EXPECT_THAT(coordinator_->Step(call, {}), HasReason("STEP_OUT_OF_TURN"));
  ASSERT_THAT(UploadInput("x", MlpInput(), 1), IsOk());
  EXPECT_THAT(coordinator_->Step(call, {}), IsOk());
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), 1);
}

TEST_F(CoordinatorTest, UpdateLoadStateAndResetOnlyCommit) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(UploadInput("b", {DType::kFloat32, {16}}), IsOk());
  StepCall call = TrainCall(1);
  call.action = LoadStateAction{{{"net1.bias", "b"}}};
  EXPECT_THAT(coordinator_->Step(call, {}), IsOk());
  call.number = StepNumber{2};
  call.action = UpdateAction{{SgdOptions{.lr = 1}}};
  EXPECT_THAT(coordinator_->Step(call, {}), IsOk());
  call.number = StepNumber{3};
  call.action = ResetOptimizerAction{};
  EXPECT_THAT(coordinator_->Step(call, {}), IsOk());
  const std::vector<CommitCall> commits = cluster_.worker("w0").commits();
  ASSERT_THAT(commits, SizeIs(3));
  EXPECT_EQ(commits[0].load_state[0].fqn, "net1.bias");
  EXPECT_TRUE(commits[1].optimizer.has_value());
  EXPECT_TRUE(commits[2].reset_optimizer);
  EXPECT_THAT(cluster_.worker("w0").runs(), IsEmpty());
}

TEST_F(CoordinatorTest, LoadStateKnowsItsParameters) {
  AddWorkers(1);
  Deploy(1);
  StepCall call = TrainCall(1);
  call.action = LoadStateAction{{{"net9.bias", "b"}}};
  EXPECT_THAT(coordinator_->Step(call, {}),
              AllOf(StatusIs(absl::StatusCode::kNotFound,
                             HasSubstr("got: \"net9.bias\"")),
                    HasMetadata("field", "load_state.entries[0].fqn")));
  call.action = LoadStateAction{{{"net1.bias", "b"}}};
  EXPECT_THAT(coordinator_->Step(call, {}), HasReason("UPLOAD_NOT_FOUND"));
  ASSERT_THAT(UploadInput("b", {DType::kFloat32, {17}}), IsOk());
  EXPECT_THAT(coordinator_->Step(call, {}),
              AllOf(HasReason("TENSOR_TYPE_MISMATCH"),
                    HasMetadata("fqn", "net1.bias")));
}

// -------------------------------------------------------------- workers go

TEST_F(CoordinatorTest, WorkerThatDiesInAStepIsNamedAndReplaced) {
  AddWorkers(4);
  Deploy(3);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w2").Hold(Method::kStep);
  cluster_.worker("w1").Die();
  EXPECT_THAT(Train(1), AllOf(StatusIs(absl::StatusCode::kUnavailable,
                                       HasSubstr("worker w1 (rank 1) is gone")),
                              HasReason("WORKER_LOST")));
  EXPECT_EQ(coordinator_->GetWorker(WorkerId{"w1"})->state, WorkerState::kLost);
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("worker w1 is LOST: its connection "
                                           "broke (rank 1)")));
  cluster_.worker("w0").Release(Method::kStep);
  cluster_.worker("w2").Release(Method::kStep);
  Deploy(3);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, LeaseThatRunsOutEndsTheStepThatRuns) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w0").Hold(Method::kStep);
  cluster_.worker("w1").Hold(Method::kStep);
  cluster_.worker("w1").Freeze();
  absl::StatusOr<StepAnswer> answer;
  std::thread step([&] { answer = Train(1); });
  cluster_.worker("w1").WaitUntilHeld(Method::kStep);
  cluster_.Advance(absl::Seconds(9));
  ASSERT_THAT(coordinator_->RenewLease(WorkerId{"w0"}, Incarnation{7},
                                       LeaseRequest::kRenew),
              IsOk());
  cluster_.Advance(absl::Seconds(2));
  coordinator_->Tick();
  step.join();
  EXPECT_THAT(answer, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("worker w1 is LOST: its lease of 10s "
                                         "ran out (rank 1)")));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
  EXPECT_THAT(coordinator_->DeleteDeployment({.id = id_}), IsOk());
  EXPECT_THAT(FreeWorkers(), ElementsAre("w0"));
}

TEST_F(CoordinatorTest, NobodyWaitsForAFrozenWorkerOnceItsLeaseIsOver) {
  AddWorkers(3);
  Deploy(2);
  cluster_.worker("w1").Hold(Method::kStep);
  cluster_.worker("w1").Freeze();
  cluster_.worker("w1").Hold(Method::kLeaveGang);
  absl::StatusOr<StepAnswer> answer;
  std::thread step([&] { answer = Train(1); });
  cluster_.worker("w1").WaitUntilHeld(Method::kStep);
  cluster_.Advance(absl::Seconds(11));
  for (const char* id : {"w0", "w2"}) {
    ASSERT_THAT(coordinator_->RenewLease(WorkerId{id}, Incarnation{7},
                                         LeaseRequest::kRenew),
                IsOk());
  }
  coordinator_->Tick();
  step.join();
  EXPECT_THAT(answer, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("worker w1 is LOST")));
  Deploy(2);
  EXPECT_EQ(cluster_.worker("w1").calls(Method::kLeaveGang), 0);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, RestartedWorkerFailsTheDeploymentOfTheOldOne) {
  AddWorkers(2);
  Deploy(2);
  ASSERT_THAT(Register("w1", 8), IsOk());
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
  EXPECT_THAT(coordinator_->GetDeployment(id_)->reason,
              HasSubstr("worker w1 is FENCED"));
  EXPECT_THAT(coordinator_->RenewLease(WorkerId{"w1"}, Incarnation{7},
                                       LeaseRequest::kRenew),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("w1")));
  Deploy(2);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, RetiredWorkerFailsItsDeployment) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(coordinator_->RenewLease(WorkerId{"w0"}, Incarnation{7},
                                       LeaseRequest::kRetire),
              IsOk());
  EXPECT_THAT(Train(1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("worker w0 is RETIRED")));
}

// What it has run to the end must reach the others' end too.
TEST_F(CoordinatorTest, RetiringWorkerWaitsForTheStepUnderWay) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w1").Hold(Method::kStep);
  absl::StatusOr<StepAnswer> answer;
  std::thread step([&] { answer = Train(1); });
  cluster_.worker("w1").WaitUntilHeld(Method::kStep);
  absl::Notification retired;
  std::thread retire([&] {
    EXPECT_THAT(coordinator_->RenewLease(WorkerId{"w0"}, Incarnation{7},
                                         LeaseRequest::kRetire),
                IsOk());
    retired.Notify();
  });
  EXPECT_FALSE(retired.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  cluster_.worker("w1").Release(Method::kStep);
  step.join();
  retire.join();
  EXPECT_THAT(answer, IsOk());
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

TEST_F(CoordinatorTest, WorkerThatDiesInAnUploadIsNamed) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").Die();
  EXPECT_THAT(UploadInput("x"),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("worker w0 (rank 0) is gone")));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

}  // namespace
}  // namespace shardplane
