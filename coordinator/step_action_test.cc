#include "coordinator/step_action.h"

#include "common/optimizer.h"
#include "coordinator/deployment.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;

DeploymentProgram ProgramOf(ValueId loss, ValueId update) {
  DeploymentProgram program;
  program.deployment = DeploymentId{"d"};
  program.id = ProgramId{"p"};
  program.program.loss = loss;
  program.program.parameters = {{"total", 0, -1, update}};
  return program;
}

TEST(CheckLossTest, TrainingNeedsALoss) {
  EXPECT_THAT(CheckLoss(ProgramOf(1, -1), {}), IsOk());
  EXPECT_THAT(CheckLoss(ProgramOf(1, 2), {.optimizer = OptimizerOptions{}}),
              IsOk());
  EXPECT_THAT(CheckLoss(ProgramOf(-1, -1), {}),
              AllOf(HasReason("PROGRAM_WITHOUT_LOSS"),
                    HasMetadata("subject", "deployments/d/programs/p")));
}

TEST(CheckLossTest, ForwardThatChangesBuffersIsAStepByItself) {
  const DeploymentProgram program = ProgramOf(-1, 2);
  EXPECT_THAT(CheckLoss(program, {}), IsOk());
  EXPECT_THAT(CheckLoss(program, {.optimizer = OptimizerOptions{}}),
              HasMetadata("field", "train.optimizer"));
  EXPECT_THAT(CheckLoss(program, {.clip_norm = 1}),
              HasMetadata("field", "train.clip_norm"));
  EXPECT_THAT(CheckLoss(program, {.accumulate = true}),
              HasMetadata("field", "train.accumulate"));
}

}  // namespace
}  // namespace shardplane
