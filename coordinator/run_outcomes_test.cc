#include "coordinator/run_outcomes.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

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

}  // namespace
}  // namespace shardplane
