#include "coordinator/step_history.h"

#include <vector>

#include "coordinator/event_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<uint64_t> Numbers(const std::vector<StepAnswer>& steps) {
  std::vector<uint64_t> numbers;
  for (const StepAnswer& step : steps) numbers.push_back(step.number.value);
  return numbers;
}

TEST(StepHistoryTest, KeepsTheLastWithoutWhatIsLarge) {
  StepHistory history(/*kept=*/3);
  for (uint64_t number = 1; number <= 5; ++number) {
    history.Add({.number = {number},
                 .collectives = {{"forward", "all_reduce", 1, 4}},
                 .seconds = 0.5,
                 .peak_run_bytes = {1, 2},
                 .timelines = {{}, {}}});
  }
  const std::vector<StepAnswer> all = history.After({0}, 10);
  EXPECT_THAT(Numbers(all), ElementsAre(3, 4, 5));
  EXPECT_EQ(all[0].seconds, 0.5);
  EXPECT_THAT(all[0].collectives, IsEmpty());
  EXPECT_THAT(all[0].peak_run_bytes, IsEmpty());
  EXPECT_THAT(all[0].timelines, IsEmpty());
  EXPECT_THAT(Numbers(history.After({3}, 10)), ElementsAre(4, 5));
  EXPECT_THAT(Numbers(history.After({0}, 2)), ElementsAre(3, 4));
  EXPECT_THAT(history.After({5}, 10), IsEmpty());
}

TEST(StepHistoryTest, KeepsTheTimesOfAsManyAsAnswersAreKept) {
  StepHistory history;
  for (uint64_t number = 1; number <= kKeptAnswers + 1; ++number) {
    history.Mark({.number = {number}, .queue = absl::Seconds(number)});
  }
  EXPECT_EQ(history.MarksOf({1}), std::nullopt);
  EXPECT_EQ(history.MarksOf({2})->queue, absl::Seconds(2));
}

TEST(EventLogTest, IdsSortAndTheOldestMakesRoom) {
  EventLog log(/*kept=*/2);
  std::optional<EventId> forgotten;
  const EventId first = log.Add({.reason = "A"}, &forgotten).id;
  EXPECT_EQ(forgotten, std::nullopt);
  const EventId second = log.Add({.reason = "B"}, &forgotten).id;
  EXPECT_LT(first.value, second.value);
  log.Add({.reason = "C"}, &forgotten);
  EXPECT_EQ(forgotten, first);
  EXPECT_THAT(log.List(), SizeIs(2));
  EXPECT_EQ(log.List().front().reason, "B");
}

}  // namespace
}  // namespace shardplane
