#include "worker/step_timelines.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

StepTimeline Timed(uint64_t step, int spans) {
  StepTimeline timeline{.step = step};
  timeline.run.spans.resize(spans);
  return timeline;
}

TEST(StepTimelinesTest, KeepsTheLast) {
  StepTimelines timelines(/*steps=*/2);
  for (const uint64_t step : {1, 2, 3}) timelines.Add(Timed(step, 1));

  EXPECT_THAT(timelines.Find(1), StatusIs(absl::StatusCode::kNotFound,
                                          testing::HasSubstr("got: 2 to 3")));
  EXPECT_THAT(timelines.Find(2), IsOkAndHolds(Timed(2, 1)));
  EXPECT_THAT(timelines.Find(3), IsOkAndHolds(Timed(3, 1)));
  timelines.Clear();
  EXPECT_THAT(timelines.Find(3), StatusIs(absl::StatusCode::kNotFound,
                                          testing::HasSubstr("none yet")));
}

TEST(StepTimelinesTest, KeepsAsMuchAsThereIsRoomFor) {
  StepTimelines timelines(/*steps=*/64,
                          /*bytes=*/10 * sizeof(InstructionSpan));
  timelines.Add(Timed(1, 6));
  timelines.Add(Timed(2, 6));
  EXPECT_THAT(timelines.Find(1),
              StatusIs(absl::StatusCode::kNotFound, testing::_));
  timelines.Add(Timed(3, 4));
  EXPECT_THAT(timelines.Find(2), IsOk());
  timelines.Add(Timed(4, 100));  // the last one in any case
  EXPECT_THAT(timelines.Find(3),
              StatusIs(absl::StatusCode::kNotFound, testing::_));
  EXPECT_THAT(timelines.Find(4), IsOk());
}

}  // namespace
}  // namespace shardplane
