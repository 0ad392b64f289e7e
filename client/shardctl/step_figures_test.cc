#include "client/shardctl/step_figures.h"

#include "gtest/gtest.h"

namespace shardplane {
namespace {

v1::StepResult StepOf(double seconds, double run, double collective,
                      double commit) {
  v1::StepResult step;
  step.set_duration_seconds(seconds);
  step.mutable_timing()->set_run_seconds(run);
  step.mutable_timing()->set_collective_seconds(collective);
  step.mutable_timing()->set_commit_call_seconds(commit);
  return step;
}

TEST(StepFiguresTest, PartsOfAllTime) {
  const StepFigures figures =
      FiguresOf({StepOf(0.1, 0.06, 0.02, 0.01), StepOf(0.3, 0.20, 0.10, 0.05),
                 StepOf(0.1, 0.06, 0.02, 0.01)});
  EXPECT_EQ(figures.steps, 3u);
  EXPECT_DOUBLE_EQ(figures.steps_per_second, 6);
  EXPECT_DOUBLE_EQ(figures.median_seconds, 0.1);
  EXPECT_NEAR(figures.run, 0.18 / 0.5, 1e-12);
  EXPECT_NEAR(figures.collectives, 0.14 / 0.5, 1e-12);
  EXPECT_NEAR(figures.commit, 0.07 / 0.5, 1e-12);
}

TEST(StepFiguresTest, NoSteps) {
  EXPECT_EQ(FiguresOf({}).steps, 0u);
  EXPECT_EQ(FiguresOf({}).steps_per_second, 0);
}

}  // namespace
}  // namespace shardplane
