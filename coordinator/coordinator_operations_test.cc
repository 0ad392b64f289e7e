#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "coordinator/coordinator.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/fake_worker.h"
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
using ::testing::IsSupersetOf;
using ::testing::Not;

class CoordinatorOperationsTest : public CoordinatorTest {
 protected:
  // With data, not materialized.
  void CreateWithData(int ranks) {
    AddWorkers(ranks);
    const auto info = Create(ranks);
    ASSERT_THAT(info, IsOk());
    id_ = info->id;
    ASSERT_THAT(UploadAll(id_), IsOk());
  }
  // Begins to materialize, and returns while the ranks are at it.
  OperationRecord BeginHeld(int ranks) {
    CreateWithData(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      Worker(rank).Hold(Method::kMaterialize);
    }
    const auto info = coordinator_->MaterializeDeployment(
        id_, {}, {}, Coordinator::Wait::kNot);
    EXPECT_THAT(info, IsOk());
    EXPECT_EQ(info->phase, DeploymentPhase::kMaterializing);
    for (int rank = 0; rank < ranks; ++rank) {
      Worker(rank).WaitUntilHeld(Method::kMaterialize);
    }
    return *coordinator_->GetOperation(info->operation);
  }
  FakeWorker& Worker(int rank) {
    return cluster_.worker(absl::StrCat("w", rank));
  }
  OperationRecord Over(const OperationId& id) {
    return *coordinator_->WaitOperation(
        id, {.deadline = absl::Now() + absl::Seconds(30)});
  }
  // "WORKER_LOST workers/w0"
  std::vector<std::string> Told() {
    std::vector<std::string> told;
    for (const EventRecord& event : coordinator_->bulletin().Events()) {
      told.push_back(absl::StrCat(event.reason, " ", event.resource));
    }
    return told;
  }
  std::string Name() const { return ResourceName(id_); }
};

TEST_F(CoordinatorOperationsTest, MaterializingIsAnOperation) {
  AddWorkers(2);
  Deploy(2);
  const DeploymentInfo info = *coordinator_->GetDeployment(id_);
  const OperationRecord record = *coordinator_->GetOperation(info.operation);
  EXPECT_EQ(record.state, OperationState::kSucceeded);
  EXPECT_EQ(record.deployment, id_);
  EXPECT_THAT(coordinator_->ListOperations(), testing::SizeIs(1));
}

TEST_F(CoordinatorOperationsTest, NobodyNeedWaitForIt) {
  const OperationRecord running = BeginHeld(2);
  EXPECT_EQ(running.state, OperationState::kRunning);
  EXPECT_THAT(
      coordinator_->MaterializeDeployment(id_, {}, {.deadline = absl::Now()}),
      Not(IsOk()))
      << "one at a time";
  Worker(0).SetProgress({3, 10});
  Worker(1).SetProgress({4, 10});
  coordinator_->Tick();  // asks
  coordinator_->Tick();  // knows
  const OperationProgress progress =
      coordinator_->GetOperation(running.id)->progress;
  EXPECT_EQ(progress.bytes_done, 7);
  EXPECT_EQ(progress.bytes_total, 20);
  Worker(0).Release(Method::kMaterialize);
  Worker(1).Release(Method::kMaterialize);
  EXPECT_EQ(Over(running.id).state, OperationState::kSucceeded);
  EXPECT_EQ(Over(running.id).progress.bytes_done, 20);
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
}

TEST_F(CoordinatorOperationsTest, CancelledItsDeploymentFails) {
  const OperationRecord running = BeginHeld(2);
  const auto cancelled = coordinator_->CancelOperation(running.id);
  ASSERT_THAT(cancelled, IsOk());
  EXPECT_EQ(cancelled->state, OperationState::kCancelled);
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
  EXPECT_THAT(coordinator_->GetDeployment(id_)->reason,
              HasSubstr("was cancelled"));
  EXPECT_THAT(coordinator_->CancelOperation(running.id)->state,
              OperationState::kCancelled)
      << "again";
  EXPECT_THAT(coordinator_->CancelOperation({"none"}),
              HasReason("OPERATION_NOT_FOUND"));
  EXPECT_THAT(Told(), Contains("OPERATION_CANCELLED " + Name()));
}

TEST_F(CoordinatorOperationsTest, FailsWithItsDeployment) {
  const OperationRecord running = BeginHeld(2);
  Worker(1).Die();
  EXPECT_EQ(Over(running.id).state, OperationState::kFailed);
  EXPECT_THAT(Over(running.id).error.message(), HasSubstr("w1"));
}

TEST_F(CoordinatorOperationsTest, ARefusedMaterializeIsNone) {
  AddWorkers(1);
  id_ = Create(1)->id;  // without data
  EXPECT_THAT(coordinator_->MaterializeDeployment(id_, {}, {}),
              HasReason("PARAMETER_DATA_MISSING"));
  EXPECT_THAT(coordinator_->ListOperations(), IsEmpty());
}

TEST_F(CoordinatorOperationsTest, ACoordinatorThatEndsWaitsForNobody) {
  BeginHeld(2);
  coordinator_.reset();  // ends what runs
}

TEST_F(CoordinatorOperationsTest, WaitingEndsAtItsDeadline) {
  const OperationRecord running = BeginHeld(1);
  EXPECT_EQ(
      coordinator_->WaitOperation(running.id, {.deadline = absl::Now()})->state,
      OperationState::kRunning);
  EXPECT_EQ(coordinator_
                ->WaitOperation(running.id, {.cancelled = [] { return true; }})
                ->state,
            OperationState::kRunning);
}

TEST_F(CoordinatorOperationsTest, ADeploymentsLifeIsTold) {
  AddWorkers(2);
  Deploy(2);
  Worker(1).FailNext(Method::kStep, Refusal());
  Worker(0).FailNext(Method::kStep, PeerFailed());
  EXPECT_THAT(Train(1), Not(IsOk()));
  ASSERT_THAT(coordinator_->DeleteDeployment({.id = id_}), IsOk());
  const std::vector<std::string> told = Told();
  EXPECT_THAT(
      told,
      ElementsAre("WORKER_REGISTERED workers/w0",
                  "WORKER_REGISTERED workers/w1", "DEPLOYMENT_FORMED " + Name(),
                  "DEPLOYMENT_MATERIALIZING " + Name(),
                  "DEPLOYMENT_READY " + Name(), "STEP_FAILED " + Name(),
                  "DEPLOYMENT_DELETED " + Name()));
}

TEST_F(CoordinatorOperationsTest, ALostWorkerAndWhatItCostsAreTold) {
  AddWorkers(2);
  Deploy(2);
  cluster_.Advance(absl::Hours(1));
  coordinator_->Tick();
  EXPECT_THAT(Told(), IsSupersetOf({std::string("WORKER_LOST workers/w0"),
                                    std::string("WORKER_LOST workers/w1"),
                                    "DEPLOYMENT_FAILED " + Name()}));
  for (const EventRecord& event : coordinator_->bulletin().Events()) {
    const bool bad =
        event.reason == "WORKER_LOST" || event.reason == "DEPLOYMENT_FAILED";
    EXPECT_EQ(event.severity == EventSeverity::kWarning, bad) << event.reason;
  }
}

TEST_F(CoordinatorOperationsTest, ADrainedWorkerGetsNoFurtherGang) {
  AddWorkers(2);
  const auto drained = coordinator_->DrainWorker({"w0"}, /*undo=*/false);
  ASSERT_THAT(drained, IsOk());
  EXPECT_EQ(drained->state, WorkerState::kDraining);
  EXPECT_THAT(FreeWorkers(), ElementsAre("w1"));
  EXPECT_THAT(Create(2), HasReason("TOO_FEW_WORKERS"));
  // Its lease goes on, and changes nothing.
  ASSERT_THAT(
      coordinator_->RenewLease({"w0"}, Incarnation{7}, LeaseRequest::kRenew),
      IsOk());
  EXPECT_THAT(FreeWorkers(), ElementsAre("w1"));
  EXPECT_THAT(coordinator_->DrainWorker({"w0"}, true)->state,
              WorkerState::kReady);
  EXPECT_THAT(FreeWorkers(), ElementsAre("w0", "w1"));
  EXPECT_THAT(coordinator_->DrainWorker({"w9"}, false),
              HasReason("WORKER_NOT_FOUND"));
  cluster_.Advance(absl::Hours(1));
  coordinator_->Tick();
  EXPECT_THAT(coordinator_->DrainWorker({"w0"}, false),
              HasReason("WORKER_NOT_THERE"));
}

// Drained in the middle of its work, it goes on with it.
TEST_F(CoordinatorOperationsTest, ADrainedWorkersGangGoesOn) {
  AddWorkers(2);
  Deploy(2);
  ASSERT_THAT(coordinator_->DrainWorker({"w1"}, false), IsOk());
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorOperationsTest, StepsAreListedAndTimed) {
  AddWorkers(2);
  Deploy(2);
  StepCall traced = TrainCall(1);
  traced.traceparent = "00-ab-cd-01";
  ASSERT_THAT(coordinator_->Step(traced, {}), IsOk());
  ASSERT_THAT(Train(2), IsOk());
  EXPECT_THAT(coordinator_->ListSteps(id_, {1}, 10),
              IsOkAndHolds(ElementsAre(
                  ::testing::Field(&StepAnswer::number, StepNumber{2}))));
  Worker(1).SetRecording({.received_unix = 7,
                          .run = {.begin_unix = 9, .spans = {{0, 1, 2}}},
                          .update_nanos = 5});
  const auto trace = coordinator_->GetStepTimeline(id_, {1});
  ASSERT_THAT(trace, IsOk());
  EXPECT_EQ(trace->marks.traceparent, "00-ab-cd-01");
  EXPECT_EQ(Worker(0).runs()[0].traceparent, "00-ab-cd-01") << "passed on";
  ASSERT_THAT(trace->ranks, testing::SizeIs(2));
  EXPECT_EQ(trace->ranks[1].worker, WorkerId{"w1"});
  EXPECT_EQ(trace->ranks[1].received_unix, 7);
  EXPECT_EQ(trace->ranks[1].update_nanos, 5);
  ASSERT_THAT(trace->ranks[1].run.spans, testing::SizeIs(1));
  EXPECT_EQ(trace->ranks[1].run.spans[0].what.name, "alias[tp]");
  EXPECT_THAT(coordinator_->GetStepTimeline(id_, {3}),
              HasReason("STEP_NOT_FOUND"));
  Worker(0).FailNext(Method::kGetTimeline, absl::NotFoundError("not kept"));
  EXPECT_THAT(coordinator_->GetStepTimeline(id_, {2}),
              AllOf(HasReason("STEP_NOT_KEPT"),
                    StatusIs(absl::StatusCode::kOutOfRange, testing::_)));
}

TEST_F(CoordinatorOperationsTest, TracesReachTheWorkersCalls) {
  CreateWithData(1);
  ASSERT_THAT(coordinator_->MaterializeDeployment(
                  id_, {}, {.traceparent = "00-ab-cd-01"}),
              IsOk());
  EXPECT_EQ(Worker(0).last_traceparent(), "00-ab-cd-01");
}

}  // namespace
}  // namespace shardplane
