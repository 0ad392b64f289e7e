#include "coordinator/run_outcomes.h"

#include <cstring>
#include <string>
#include <vector>

#include "common/device_mesh.h"
#include "common/host_tensor.h"
#include "common/placement.h"
#include "common/sharded_program.h"
#include "coordinator/deployment.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

HostTensor Scalar(float value) {
  HostTensor tensor{{DType::kFloat32, {}}, std::string(sizeof(value), '\0')};
  std::memcpy(tensor.bytes.data(), &value, sizeof(value));
  return tensor;
}

// A program on three ranks whose loss lies as `placement` says.
DeploymentProgram WithLoss(const Placement& placement) {
  DeploymentProgram program;
  program.program.mesh = *DeviceMesh::Create({{"tp", 3}});
  program.program.values = {{"loss", {DType::kFloat32, {}}, {{placement}, {}}}};
  program.program.loss = 0;
  return program;
}

TEST(RunOutcomesTest, PartialLossIsTheSumOfTheRanks) {
  const DeploymentProgram program = WithLoss(Partial{});
  const std::vector<RunOutcome> outcomes{
      {.loss = Scalar(1)}, {.loss = Scalar(2)}, {.loss = Scalar(4)}};
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kTrain}, &program, outcomes, &answer),
              IsOk());
  EXPECT_EQ(answer.loss, Scalar(7));
}

TEST(RunOutcomesTest, ReplicatedLossCountsOnce) {
  const DeploymentProgram program = WithLoss(Replicate{});
  const std::vector<RunOutcome> outcomes(3, {.loss = Scalar(2)});
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kTrain}, &program, outcomes, &answer),
              IsOk());
  EXPECT_EQ(answer.loss, Scalar(2));
}

TEST(RunOutcomesTest, ProgramWithoutALossHasNone) {
  DeploymentProgram program = WithLoss(Replicate{});
  program.program.loss = -1;
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kTrain}, &program,
                       std::vector<RunOutcome>(3), &answer),
              IsOk());
  EXPECT_FALSE(answer.loss.has_value());
}

TEST(RunOutcomesTest, RankWithoutALossIsNamed) {
  const DeploymentProgram program = WithLoss(Partial{});
  const std::vector<RunOutcome> outcomes{
      {.loss = Scalar(1)}, {}, {.loss = Scalar(4)}};
  StepAnswer answer;
  EXPECT_THAT(Assemble({.mode = RunMode::kTrain}, &program, outcomes, &answer),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("rank 1")));
}

TEST(RunOutcomesTest, TimesAreThoseOfTheSlowestRank) {
  const std::vector<RunOutcome> outcomes{
      {.seconds = 0.25, .collective_seconds = 0.2},
      {.seconds = 0.5, .collective_seconds = 0.125},
      {.seconds = 0.375, .collective_seconds = 0.375}};
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kNorm}, nullptr, outcomes, &answer),
              IsOk());
  EXPECT_EQ(answer.timing, (StepTiming{.run = 0.5, .collectives = 0.125}));
}

TEST(RunOutcomesTest, PeaksAreByRank) {
  const std::vector<RunOutcome> outcomes{{.peak_bytes = 7}, {.peak_bytes = 5}};
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kNorm}, nullptr, outcomes, &answer),
              IsOk());
  EXPECT_EQ(answer.peak_run_bytes, (std::vector<int64_t>{7, 5}));
}

TEST(RunOutcomesTest, TimelinesTellWhatRan) {
  DeploymentProgram program = WithLoss(Replicate{});
  program.program.instructions = {Ones{program.program.loss}};
  std::vector<RunOutcome> outcomes(3, {.loss = Scalar(1)});
  for (RunOutcome& outcome : outcomes) {
    outcome.timeline = {.begin_unix = 9, .spans = {{0, 1, 2}}};
  }
  StepAnswer answer;
  ASSERT_THAT(Assemble({.mode = RunMode::kTrain, .timeline = true}, &program,
                       outcomes, &answer),
              IsOk());
  ASSERT_EQ(answer.timelines.size(), 3);
  const Timeline expected{
      .begin_unix = 9,
      .spans = {{{0, 1, 2}, {.kind = SpanKind::kLocal, .name = "ones"}}}};
  EXPECT_EQ(answer.timelines[2], expected);
  answer = {};
  ASSERT_THAT(Assemble({.mode = RunMode::kTrain}, &program, outcomes, &answer),
              IsOk());
  EXPECT_TRUE(answer.timelines.empty());
}

}  // namespace
}  // namespace shardplane
