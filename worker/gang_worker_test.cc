#include "worker/gang_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "tests/matchers.h"
#include "worker/fake_executor.h"
#include "worker/fake_gang_store.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kIncarnation = 7;

class GangWorkerTest : public testing::Test {
 protected:
  GangCall Call(uint64_t epoch, std::string request_id = "") {
    return {.deployment = "deployments/d",
            .epoch = epoch,
            .incarnation = kIncarnation,
            .request_id = std::move(request_id)};
  }
  absl::Status Join(uint64_t epoch) {
    return worker_.Join(
        Call(epoch), {.deployment = "deployments/d", .epoch = epoch}, store_);
  }
  GangRun Train(uint64_t step) {
    return {.step = step,
            .spec = {.program = "p", .mode = RunMode::kTrain},
            .expected_hash = kCollectiveHashSeed};
  }

  FakeExecutor executor_;
  Metrics metrics_{{.component = "worker"}};
  std::shared_ptr<FakeGangStore> store_ = std::make_shared<FakeGangStore>();
  GangWorker worker_{kIncarnation, &executor_, &metrics_};
};

TEST_F(GangWorkerTest, JoinTwiceJoinsOnce) {
  EXPECT_THAT(Join(1), IsOk());
  EXPECT_THAT(Join(1), IsOk());
  EXPECT_THAT(executor_.calls(),
              ElementsAre(HasSubstr("abort"), "join 1 rank 0"));
}

TEST_F(GangWorkerTest, JoinThatFailedFailsAgainAndBlocksTheGangsCalls) {
  executor_.join_status = absl::UnavailableError("a peer is missing");
  EXPECT_THAT(Join(1), StatusIs(StatusCode::kUnavailable, HasSubstr("peer")));
  executor_.join_status = absl::OkStatus();
  EXPECT_THAT(Join(1), StatusIs(StatusCode::kUnavailable, HasSubstr("peer")));
  EXPECT_THAT(worker_.Run(Call(1), Train(1)),
              StatusIs(StatusCode::kUnavailable, HasSubstr("peer")));
  EXPECT_THAT(Join(2), IsOk());
}

TEST_F(GangWorkerTest, OldEpochReachesNothing) {
  ASSERT_THAT(Join(2), IsOk());
  const size_t before = executor_.calls().size();
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), HasReason("STALE_EPOCH"));
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 1}), HasReason("STALE_EPOCH"));
  EXPECT_THAT(worker_.Abort(Call(1), "old"), HasReason("STALE_EPOCH"));
  EXPECT_THAT(worker_.Leave(Call(1)), HasReason("STALE_EPOCH"));
  EXPECT_EQ(executor_.calls().size(), before);
}

TEST_F(GangWorkerTest, SameRequestRunsOnce) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.seconds = 3;
  EXPECT_THAT(worker_.Run(Call(1, "r1"), Train(1)), IsOk());
  executor_.run_result.seconds = 4;
  const auto again = worker_.Run(Call(1, "r1"), Train(1));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->seconds, 3);
  EXPECT_THAT(worker_.Run(Call(1, "r2"), Train(1)), IsOk());
  EXPECT_THAT(executor_.calls(),
              ElementsAre(HasSubstr("abort"), "join 1 rank 0", "run p of ",
                          "run p of "));
}

TEST_F(GangWorkerTest, CollectivesThatDifferFailTheStep) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.ran.hash = 1;
  const auto result = worker_.Run(Call(1), Train(1));
  EXPECT_THAT(result, StatusIs(StatusCode::kInternal, HasSubstr("got: 1")));
  EXPECT_THAT(result, HasReason("COLLECTIVES_DIFFER"));
  EXPECT_EQ(executor_.calls().back(), "discard");
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("steps_total{phase=\"train\",result=\"failed\"} 1"));
}

TEST_F(GangWorkerTest, StepIsCommittedOnce) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  const GangCommit commit{.step = 1, .optimizer = OptimizerOptions()};
  EXPECT_THAT(worker_.Commit(Call(1), commit), IsOk());
  EXPECT_THAT(worker_.Commit(Call(1), commit), IsOk());
  EXPECT_THAT(executor_.calls(),
              ElementsAre(HasSubstr("abort"), "join 1 rank 0", "run p of ",
                          "commit with SGD"));
  const auto late = worker_.Run(Call(1), Train(1));
  EXPECT_THAT(late, StatusIs(StatusCode::kAborted, HasSubstr("got: 1")));
  EXPECT_THAT(late, HasMetadata("expected", "2"));
}

TEST_F(GangWorkerTest, NormAloneIsRunAndCountedAsOne) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.ran.counts = {{"optimizer", "all_reduce", 1, 8}};
  executor_.run_result.gradient_norm = 2.5;
  GangRun norm{.step = 1, .expected_hash = kCollectiveHashSeed};
  norm.spec = {.mode = RunMode::kNorm, .gradient_norm = true};
  const auto result = worker_.Run(Call(1), norm);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->gradient_norm, 2.5);
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 1,
                                       .optimizer = OptimizerOptions(),
                                       .clip_norm = 0.5}),
              IsOk());
  EXPECT_THAT(executor_.calls(),
              ElementsAre(HasSubstr("abort"), "join 1 rank 0", "norm",
                          "commit with SGD clip 0.5"));
  EXPECT_THAT(metrics_.Text(),
              AllOf(HasSubstr("steps_total{phase=\"norm\",result=\"ok\"} 1"),
                    HasSubstr("collectives_total{collective=\"all_reduce\","
                              "phase=\"optimizer\"} 1")));
}

TEST_F(GangWorkerTest, AbandonedStepMayRunAgain) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 1, .abandon = true}), IsOk());
  EXPECT_EQ(executor_.calls().back(), "discard");
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 1}), IsOk());
  EXPECT_EQ(executor_.calls().back(), "commit");
}

TEST_F(GangWorkerTest, CommitDoesWhatItsActionSays) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(
      worker_.Commit(Call(1),
                     {.step = 1, .load_state = LoadStateSpec{{{"w", "u"}}}}),
      IsOk());
  EXPECT_EQ(executor_.calls().back(), "load state 1");
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 2, .reset_optimizer = true}),
              IsOk());
  EXPECT_EQ(executor_.calls().back(), "reset optimizer");
}

TEST_F(GangWorkerTest, AbortEndsARun) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.block_run = std::make_shared<absl::Notification>();
  executor_.run_began = std::make_shared<absl::Notification>();
  absl::Status result;
  std::thread runner([&] { result = worker_.Run(Call(1), Train(1)).status(); });
  executor_.run_began->WaitForNotification();
  EXPECT_THAT(worker_.Abort(Call(1), "a peer is lost"), IsOk());
  runner.join();
  EXPECT_THAT(result, StatusIs(StatusCode::kUnavailable, "aborted"));
  EXPECT_THAT(executor_.calls(), Contains("abort: a peer is lost"));
}

TEST_F(GangWorkerTest, NewerGangEndsTheOldOnesRun) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.block_run = std::make_shared<absl::Notification>();
  executor_.run_began = std::make_shared<absl::Notification>();
  std::thread runner([&] {
    EXPECT_THAT(worker_.Run(Call(1), Train(1)),
                StatusIs(StatusCode::kUnavailable, testing::_));
  });
  executor_.run_began->WaitForNotification();
  EXPECT_THAT(Join(2), IsOk());
  runner.join();
  EXPECT_EQ(executor_.calls().back(), "join 2 rank 0");
}

TEST_F(GangWorkerTest, LeavingFreesTheWorkerForAnotherGang) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_TRUE(worker_.in_gang());
  EXPECT_THAT(worker_.Leave(Call(1)), IsOk());
  EXPECT_THAT(worker_.Leave(Call(1)), IsOk());
  EXPECT_FALSE(worker_.in_gang());
  EXPECT_THAT(worker_.Read(Call(1), OutputKey{0}), HasReason("NOT_IN_GANG"));
  EXPECT_THAT(Join(2), IsOk());
}

TEST_F(GangWorkerTest, DrainingWorkerJoinsNoGang) {
  worker_.Drain();
  EXPECT_THAT(Join(1), HasReason("WORKER_DRAINING"));
  EXPECT_THAT(executor_.calls(), Not(Contains("join 1 rank 0")));
}

TEST_F(GangWorkerTest, CountsWhatRan) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.ran.counts = {{"forward", "all_reduce", 2, 64}};
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  EXPECT_THAT(
      metrics_.Text(),
      testing::AllOf(
          HasSubstr("steps_total{phase=\"train\",result=\"ok\"} 1"),
          HasSubstr("collectives_total{collective=\"all_reduce\",phase="
                    "\"forward\"} 2"),
          HasSubstr("collective_bytes_total{collective=\"all_reduce\"} 64")));
}

}  // namespace
}  // namespace shardplane
