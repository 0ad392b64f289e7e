#include "coordinator/action_queue.h"

#include <optional>
#include <string>
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
using Kind = ActionQueue::Kind;

constexpr absl::Time kNow = absl::InfinitePast();  // no waiting
const auto kBusy =
    StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("still running"));

TEST(ActionQueueTest, OneTurnAtATime) {
  ActionQueue queue;
  {
    const auto turn = queue.Wait(Kind::kAlone, absl::InfiniteFuture());
    ASSERT_THAT(turn, IsOk());
    EXPECT_THAT(queue.Wait(Kind::kAlone, kNow), kBusy);
  }
  EXPECT_THAT(queue.Wait(Kind::kAlone, kNow), IsOk());
}

TEST(ActionQueueTest, WhoHasGoneGetsNoTurn) {
  ActionQueue queue;
  EXPECT_THAT(
      queue.Wait(Kind::kAlone, absl::InfiniteFuture(), [] { return true; }),
      StatusIs(absl::StatusCode::kCancelled, HasSubstr("gone")));
  EXPECT_THAT(queue.Wait(Kind::kAlone, kNow), IsOk());
}

TEST(ActionQueueTest, RefusesTooManyWaiters) {
  ActionQueue queue;
  auto turn =
      std::make_optional(queue.Wait(Kind::kAlone, absl::InfiniteFuture()));
  std::vector<std::thread> waiters;
  for (int i = 0; i < ActionQueue::kMaxWaiting; ++i) {
    waiters.emplace_back([&queue] {
      EXPECT_THAT(queue.Wait(Kind::kAlone, absl::InfiniteFuture()), IsOk());
    });
  }
  // Until all of them wait, there is room, and no turn, for one more.
  while (!absl::IsResourceExhausted(queue.Wait(Kind::kAlone, kNow).status())) {
    std::this_thread::yield();
  }
  turn.reset();
  for (std::thread& waiter : waiters) {
    waiter.join();
  }
}

TEST(ActionQueueTest, StepsShareAndOthersAreAlone) {
  ActionQueue queue;
  auto first = std::make_optional(queue.Wait(Kind::kStep, kNow));
  auto second = std::make_optional(queue.Wait(Kind::kStep, kNow));
  ASSERT_THAT(*second, IsOk());
  EXPECT_THAT(queue.Wait(Kind::kAlone, kNow), kBusy);
  first.reset();
  EXPECT_THAT(queue.Wait(Kind::kAlone, kNow), kBusy);
  second.reset();
  const auto alone = queue.Wait(Kind::kAlone, kNow);
  ASSERT_THAT(alone, IsOk());
  EXPECT_THAT(queue.Wait(Kind::kStep, kNow), kBusy);
}

TEST(ActionQueueTest, StepsAreBounded) {
  ActionQueue queue;
  std::vector<ActionQueue::Turn> turns;
  for (int i = 0; i < ActionQueue::kMaxSteps; ++i) {
    auto turn = queue.Wait(Kind::kStep, kNow);
    ASSERT_THAT(turn, IsOk());
    turns.push_back(*std::move(turn));
  }
  EXPECT_THAT(queue.Wait(Kind::kStep, kNow), kBusy);
  turns.pop_back();
  EXPECT_THAT(queue.Wait(Kind::kStep, kNow), IsOk());
}

// However many steps come: who waits to be alone is not overtaken.
TEST(ActionQueueTest, StepsDoNotOvertake) {
  ActionQueue queue;
  auto step = std::make_optional(queue.Wait(Kind::kStep, kNow));
  std::vector<std::string> order;
  std::thread alone([&] {
    const auto turn = queue.Wait(Kind::kAlone, absl::InfiniteFuture());
    order.push_back("alone");
  });
  // As long as nobody waits, a step gets its turn at once.
  while (queue.Wait(Kind::kStep, kNow).ok()) {
    std::this_thread::yield();
  }
  std::thread later([&] {
    const auto turn = queue.Wait(Kind::kStep, absl::InfiniteFuture());
    order.push_back("step");
  });
  step.reset();
  alone.join();
  later.join();
  EXPECT_THAT(order, ElementsAre("alone", "step"));
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
    stream.SetBusy(true);
    now += absl::Hours(1);
    watch.Sweep();
    EXPECT_EQ(cancelled, 0);
    stream.SetBusy(false);
    watch.Sweep();
    EXPECT_EQ(cancelled, 0);
    now += absl::Seconds(11);
    watch.Sweep();
    EXPECT_EQ(cancelled, 1);
  }
  now += absl::Hours(1);
  watch.Sweep();
  EXPECT_EQ(cancelled, 1);
}

}  // namespace
}  // namespace shardplane
