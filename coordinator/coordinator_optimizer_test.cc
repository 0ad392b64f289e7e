// Updates: clipping, kinds of optimizer, groups, and the number that random
// masks are drawn for.
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "common/gradient_norm.h"
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
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CoordinatorOptimizerTest : public CoordinatorTest {
 protected:
  absl::StatusOr<StepAnswer> Act(uint64_t number, StepAction action) {
    return coordinator_->Step({.deployment = id_,
                               .number = StepNumber{number},
                               .digest = "body",
                               .action = std::move(action)},
                              {});
  }
  absl::StatusOr<StepAnswer> TrainWith(
      uint64_t number, std::optional<OptimizerOptions> optimizer,
      std::optional<double> clip_norm = std::nullopt) {
    return Act(number, TrainAction{.program = {id_, program_},
                                   .inputs = {Zeros(MlpInput())},
                                   .optimizer = std::move(optimizer),
                                   .clip_norm = clip_norm});
  }
  absl::StatusOr<StepAnswer> UpdateWith(
      uint64_t number, OptimizerOptions optimizer,
      std::optional<double> clip_norm = std::nullopt) {
    return Act(number, UpdateAction{std::move(optimizer), clip_norm});
  }
};

const CollectiveCount kForward{"forward", "all_reduce", 1, 384};
const CollectiveCount kNorm{"optimizer", "all_reduce", 1, 8};
const OptimizerOptions kSgd{SgdOptions{.lr = 1}};
const OptimizerOptions kAdam{AdamOptions{}};
const OptimizerOptions kAdamW{AdamOptions{.kind = AdamKind::kAdamW}};

TEST_F(CoordinatorOptimizerTest, ClippedTrainTellsTheNorm) {
  AddWorkers(2);
  Deploy(2);
  ASSERT_THAT(Train(1), IsOk());
  const auto answer = TrainWith(2, kSgd, 0.5);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->gradient_norm, 2.5);
  EXPECT_TRUE(answer->loss.has_value());
  EXPECT_THAT(answer->collectives, ElementsAre(kForward, kNorm));
  for (const char* id : {"w0", "w1"}) {
    const std::vector<RunCall> runs = cluster_.worker(id).runs();
    ASSERT_THAT(runs, SizeIs(2));
    EXPECT_FALSE(runs[0].gradient_norm);
    EXPECT_TRUE(runs[1].gradient_norm);
    // The norm's collectives come after the program's.
    EXPECT_EQ(runs[1].expected_hash,
              HashCollectives(NormCollectives(*DeviceMesh::Create({{"tp", 2}})),
                              runs[0].expected_hash));
    EXPECT_EQ(cluster_.worker(id).commits()[1].clip_norm, 0.5);
  }
  EXPECT_THAT(coordinator_->GetStep(id_, StepNumber{1})->gradient_norm,
              std::nullopt);
  EXPECT_EQ(coordinator_->GetStep(id_, StepNumber{2})->gradient_norm, 2.5);
}

TEST_F(CoordinatorOptimizerTest, ClippedUpdateRunsTheNormFirst) {
  AddWorkers(2);
  Deploy(2);
  ASSERT_THAT(TrainWith(1, std::nullopt), IsOk());
  const auto answer = UpdateWith(2, kSgd, 0.5);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->gradient_norm, 2.5);
  EXPECT_FALSE(answer->loss.has_value());
  EXPECT_THAT(answer->collectives, ElementsAre(kNorm));
  for (const char* id : {"w0", "w1"}) {
    const RunCall run = cluster_.worker(id).runs()[1];
    EXPECT_EQ(run.mode, RunMode::kNorm);
    EXPECT_EQ(run.step, StepNumber{2});
    EXPECT_EQ(run.program, ProgramId{});
    EXPECT_EQ(
        run.expected_hash,
        HashCollectives(NormCollectives(*DeviceMesh::Create({{"tp", 2}}))));
    EXPECT_EQ(cluster_.worker(id).commits()[1].clip_norm, 0.5);
  }
  EXPECT_THAT(UpdateWith(2, kSgd, 0.5), IsOkAndHolds(*answer)) << "again";
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kRun), 1);
  // Outputs are still those of the train.
  EXPECT_THAT(
      coordinator_->Download({.deployment = id_, .tensor = OutputKey{0}}, {}),
      IsOk());
}

TEST_F(CoordinatorOptimizerTest, NormThatFailsIsAppliedNowhere) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w1").FailNext(Method::kRun, Refusal());
  EXPECT_THAT(
      UpdateWith(1, kSgd, 0.5),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("worker w1 (rank 1)")));
  EXPECT_TRUE(cluster_.worker("w0").commits()[0].abandon);
  EXPECT_EQ(Phase(), DeploymentPhase::kReady);
  EXPECT_THAT(UpdateWith(1, kSgd, 0.5), IsOk());
}

// The ranks have computed it together: replicas that were scaled by different
// norms have parted.
TEST_F(CoordinatorOptimizerTest, NormsThatDifferInAStepFailTheDeployment) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w1").SetGradientNorm(3);
  EXPECT_THAT(
      TrainWith(1, kSgd, 0.5),
      AllOf(StatusIs(absl::StatusCode::kInternal,
                     HasSubstr("rank 1: expected rank 0's, 2.5; got: 3")),
            HasReason("GRADIENT_NORMS_DIFFER")));
  EXPECT_EQ(Phase(), DeploymentPhase::kFailed);
}

TEST_F(CoordinatorOptimizerTest, NormsThatDifferInAnUpdateAreAppliedNowhere) {
  AddWorkers(2);
  Deploy(2);
  cluster_.worker("w1").SetGradientNorm(3);
  EXPECT_THAT(UpdateWith(1, kSgd, 0.5), HasReason("GRADIENT_NORMS_DIFFER"));
  EXPECT_TRUE(cluster_.worker("w0").commits()[0].abandon);
  EXPECT_EQ(coordinator_->GetDeployment(id_)->last_step, StepNumber{0});
}

TEST_F(CoordinatorOptimizerTest, NormThatIsNoNumberIsAgreedOn) {
  AddWorkers(2);
  Deploy(2);
  for (const char* id : {"w0", "w1"}) {
    cluster_.worker(id).SetGradientNorm(
        std::numeric_limits<double>::quiet_NaN());
  }
  const auto answer = TrainWith(1, kSgd, 0.5);
  ASSERT_THAT(answer, IsOk());
  EXPECT_TRUE(std::isnan(*answer->gradient_norm));
}

TEST_F(CoordinatorOptimizerTest, AnotherKindIsRefusedBeforeAnythingRuns) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(TrainWith(1, kAdam), IsOk());
  ASSERT_THAT(TrainWith(2, std::nullopt), IsOk());
  const int steps = cluster_.worker("w0").calls(Method::kStep);
  EXPECT_THAT(TrainWith(3, kAdamW),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("expected Adam, of which there is state "
                                       "until it is reset; got: AdamW")),
                    HasReason("OPTIMIZER_KIND_DIFFERS"),
                    HasMetadata("field", "train.optimizer")));
  EXPECT_THAT(UpdateWith(3, kSgd, 0.5),
              AllOf(HasReason("OPTIMIZER_KIND_DIFFERS"),
                    HasMetadata("field", "update.optimizer")));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kStep), steps);
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kRun), 0);
  EXPECT_THAT(cluster_.worker("w0").commits(), SizeIs(2));
  EXPECT_THAT(UpdateWith(3, OptimizerOptions{AdamOptions{.lr = 1}}), IsOk());
  ASSERT_THAT(Act(4, ResetOptimizerAction{}), IsOk());
  EXPECT_THAT(UpdateWith(5, kSgd), IsOk());
}

TEST_F(CoordinatorOptimizerTest, KindCountsOnceItIsApplied) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  EXPECT_THAT(TrainWith(1, kAdam), HasReason("BOOM"));
  EXPECT_THAT(TrainWith(1, kSgd), IsOk());
  cluster_.worker("w0").FailNext(Method::kCommit, Refusal());
  EXPECT_THAT(Act(2, ResetOptimizerAction{}), HasReason("BOOM"));
  EXPECT_THAT(TrainWith(2, kAdam), HasReason("OPTIMIZER_KIND_DIFFERS"));
}

TEST_F(CoordinatorOptimizerTest, GroupsAreCheckedBeforeAnythingRuns) {
  AddWorkers(1);
  Deploy(1);
  OptimizerOptions optimizer{SgdOptions{.lr = 1},
                             {{{"*.bias", "net3.*"}, SgdOptions{.lr = 2}}}};
  EXPECT_THAT(
      TrainWith(1, optimizer, 0.5),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                     HasSubstr("did you mean 'net1.*'")),
            HasReason("PATTERN_WITHOUT_MATCH"),
            HasMetadata("field", "train.optimizer.groups[0].patterns[1]")));
  EXPECT_THAT(UpdateWith(1, optimizer, 0.5),
              HasMetadata("field", "update.optimizer.groups[0].patterns[1]"));
  EXPECT_THAT(cluster_.worker("w0").runs(), IsEmpty());
  optimizer.groups[0].patterns = {"*.bias"};
  ASSERT_THAT(TrainWith(1, optimizer), IsOk());
  EXPECT_EQ(cluster_.worker("w0").commits()[0].optimizer, optimizer);
}

TEST_F(CoordinatorOptimizerTest, MasksAreThoseOfTheNextStep) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(Forward({Zeros(MlpInput())}), IsOk());
  ASSERT_THAT(Train(1), IsOk());
  ASSERT_THAT(UpdateWith(2, kSgd), IsOk());
  ASSERT_THAT(Forward({Zeros(MlpInput())}), IsOk());
  ASSERT_THAT(Forward({Zeros(MlpInput())}), IsOk());
  ASSERT_THAT(Train(3), IsOk());
  std::vector<uint64_t> steps;
  for (const RunCall& run : cluster_.worker("w0").runs()) {
    steps.push_back(run.random_step.value);
  }
  EXPECT_THAT(steps, ElementsAre(1, 1, 3, 3, 3));
}

}  // namespace
}  // namespace shardplane
