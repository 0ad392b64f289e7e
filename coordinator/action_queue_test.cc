#include "coordinator/action_queue.h"

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "coordinator/background.h"
#include "coordinator/cancellation.h"
#include "coordinator/stream_watch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ActionQueueTest, OneTurnAtATime) {
  ActionQueue queue;
  {
    const auto turn = queue.Wait(absl::InfiniteFuture());
    ASSERT_THAT(turn, IsOk());
    EXPECT_THAT(queue.Wait(absl::InfinitePast()),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         HasSubstr("still running")));
  }
  EXPECT_THAT(queue.Wait(absl::InfinitePast()), IsOk());
}

TEST(ActionQueueTest, WhoHasGoneGetsNoTurn) {
  ActionQueue queue;
  EXPECT_THAT(queue.Wait(absl::InfiniteFuture(), [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("gone")));
  EXPECT_THAT(queue.Wait(absl::InfinitePast()), IsOk());
}

TEST(ActionQueueTest, RefusesTooManyWaiters) {
  ActionQueue queue;
  auto turn = std::make_optional(queue.Wait(absl::InfiniteFuture()));
  std::vector<std::thread> waiters;
  for (int i = 0; i < ActionQueue::kMaxWaiting; ++i) {
    waiters.emplace_back(
        [&queue] { EXPECT_THAT(queue.Wait(absl::InfiniteFuture()), IsOk()); });
  }
  // Until all of them wait, there is room, and no turn, for one more.
  while (
      !absl::IsResourceExhausted(queue.Wait(absl::InfinitePast()).status())) {
    std::this_thread::yield();
  }
  turn.reset();
  for (std::thread& waiter : waiters) {
    waiter.join();
  }
}

TEST(BackgroundTest, RunsInOrderAndBeforeItEnds) {
  std::vector<int> ran;
  {
    Background background;
    background.Add([&ran] { ran.push_back(1); });
    background.Add([&ran] { ran.push_back(2); });
    EXPECT_TRUE(background.WaitUntilIdle(absl::InfiniteFuture()));
    EXPECT_THAT(ran, ElementsAre(1, 2));
    background.Add([&ran] { ran.push_back(3); });
  }
  EXPECT_THAT(ran, ElementsAre(1, 2, 3));
}

TEST(CancellationTest, RunsHooksThatAreRegistered) {
  Cancellation cancellation;
  int first = 0;
  int second = 0;
  int late = 0;
  Cancellation::Registration a;
  Cancellation::Registration b;
  a.Set(&cancellation, [&first] { ++first; });
  b.Set(&cancellation, [&second] { ++second; });
  b.Reset();
  cancellation.Cancel();
  EXPECT_TRUE(cancellation.cancelled());
  Cancellation::Registration c;
  c.Set(&cancellation, [&late] { ++late; });
  EXPECT_THAT((std::vector<int>{first, second, late}), ElementsAre(1, 0, 1));
}

TEST(StreamWatchTest, CancelsWhatIsIdle) {
  absl::Time now = absl::FromUnixSeconds(1000);
  StreamWatch watch(absl::Seconds(10), [&now] { return now; });
  int cancelled = 0;
  {
    StreamWatch::Stream stream(&watch, [&cancelled] { ++cancelled; });
    now += absl::Seconds(9);
    stream.Touch();
    now += absl::Seconds(9);
    watch.Sweep();
    EXPECT_EQ(cancelled, 0);
    now += absl::Seconds(2);
    watch.Sweep();
    EXPECT_EQ(cancelled, 1);
  }
  now += absl::Hours(1);
  watch.Sweep();
  EXPECT_EQ(cancelled, 1);
}

}  // namespace
}  // namespace shardplane
