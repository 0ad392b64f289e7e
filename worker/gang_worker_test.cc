#include "worker/gang_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/matchers.h"
#include "worker/fake_executor.h"
#include "worker/fake_gang_store.h"
#include "worker/nvtx_range.h"
#include "worker/nvtx_recorder_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

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

  GangStep ToStep(uint64_t number) {
    return {.run = Train(number), .commit = {.optimizer = OptimizerOptions()}};
  }
  // Starts a step; `answers_[i]` becomes the answer to the i-th one started.
  void Start(const GangCall& call, absl::StatusOr<GangStep> step) {
    answers_.emplace_back();
    absl::StatusOr<StepOutcome>* answer = &answers_.back();
    worker_.Step(call, std::move(step),
                 [answer](absl::StatusOr<StepOutcome> outcome) {
                   *answer = std::move(outcome);
                 });
  }
  absl::StatusOr<StepOutcome> Step(const GangCall& call,
                                   absl::StatusOr<GangStep> step) {
    Start(call, std::move(step));
    worker_.Drain();  // waits for what is queued
    return answers_.back();
  }
  absl::StatusOr<StepOutcome> Step(uint64_t number) {
    return Step(Call(1), ToStep(number));
  }
  // What the executor was told since the gang was joined.
  std::vector<std::string> CallsInGang() const {
    std::vector<std::string> calls = executor_.calls();
    calls.erase(calls.begin(), calls.begin() + 2);  // abort, join
    return calls;
  }

  std::deque<absl::StatusOr<StepOutcome>> answers_;  // outlive the worker
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
  executor_.run_result.ran.carried = {{"all_reduce", Transport::kNccl, 48},
                                      {"all_reduce", Transport::kGloo, 16}};
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  EXPECT_THAT(metrics_.Text(),
              testing::AllOf(
                  HasSubstr("steps_total{phase=\"train\",result=\"ok\"} 1"),
                  HasSubstr("collectives_total{collective=\"all_reduce\",phase="
                            "\"forward\"} 2"),
                  HasSubstr("collective_bytes_total{collective=\"all_reduce\","
                            "transport=\"nccl\"} 48"),
                  HasSubstr("collective_bytes_total{collective=\"all_reduce\","
                            "transport=\"gloo\"} 16")));
}

TEST_F(GangWorkerTest, StepRunsAgreesAndCommits) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.ran.counts = {{"forward", "all_reduce", 2, 64}};
  executor_.run_result.ran.carried = {
      {"all_reduce", Transport::kSharedMemory, 64}};
  executor_.run_result.seconds = 3;
  GangStep clipped = ToStep(2);
  clipped.commit.clip_norm = 0.5;
  const auto first = Step(1);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->run.seconds, 3);
  EXPECT_GE(first->commit_seconds, 0);
  EXPECT_THAT(first->run.ran.counts,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 2, 64},
                          CollectiveCount{"commit", "all_reduce", 1, 4}));
  EXPECT_EQ(first->run.ran.hash, kCollectiveHashSeed) << "the program's alone";
  EXPECT_THAT(Step(Call(1), clipped), IsOk());
  EXPECT_THAT(
      CallsInGang(),
      ElementsAre("run p of ", "agree to commit", "commit with SGD",
                  "run p of ", "agree to commit", "commit with SGD clip 0.5"));
  EXPECT_THAT(
      metrics_.Text(),
      AllOf(HasSubstr("steps_total{phase=\"train\",result=\"ok\"} 2"),
            HasSubstr("step_duration_seconds_sum{phase=\"train\"} 6"),
            HasSubstr("step_duration_seconds_count{phase=\"commit\"} 2"),
            HasSubstr("collectives_total{collective=\"all_reduce\",phase="
                      "\"commit\"} 2"),
            HasSubstr("collective_bytes_total{collective=\"all_reduce\","
                      "transport=\"shm\"} 136")));
}

TEST_F(GangWorkerTest, StepsAreShownToProfilers) {
  NvtxRecorder recorder;
  const NvtxDomain domain;
  GangWorker worker(kIncarnation, &executor_, nullptr, &domain);
  ASSERT_THAT(
      worker.Join(Call(1), {.deployment = "deployments/d", .epoch = 1}, store_),
      IsOk());
  GangRun forward = Train(0);
  forward.spec.mode = RunMode::kForward;
  EXPECT_THAT(worker.Run(Call(1), forward), IsOk());
  EXPECT_THAT(worker.Run(Call(1), Train(1)), IsOk());
  absl::Notification done;
  worker.Step(Call(1), ToStep(1), [&](const auto&) { done.Notify(); });
  done.WaitForNotification();
  executor_.run_status = absl::InternalError("an operator");
  worker.Step(Call(1), ToStep(2), [](const auto&) {});
  worker.Drain();
  EXPECT_THAT(recorder.TakeRanges(), ElementsAre("step 1", "step 1", "step 2"));
}

TEST_F(GangWorkerTest, ProductsAreKeptForUpdatesThatOnlyAddThem) {
  ASSERT_THAT(Join(1), IsOk());
  const auto keeps = [&](const GangStep& step) {
    EXPECT_THAT(Step(Call(1), step), IsOk());
    return executor_.last_run().keep_products;
  };
  EXPECT_TRUE(keeps(ToStep(1)));
  GangStep momentum = ToStep(2);
  momentum.commit.optimizer->values = SgdOptions{.momentum = 0.5};
  EXPECT_FALSE(keeps(momentum));
  GangStep of_a_group = ToStep(3);
  of_a_group.commit.optimizer->groups = {{{"*"}, SgdOptions{.momentum = 0.5}}};
  EXPECT_FALSE(keeps(of_a_group));
  GangStep with_norm = ToStep(4);
  with_norm.run.spec.gradient_norm = true;
  EXPECT_FALSE(keeps(with_norm));
  GangStep accumulating = ToStep(5);
  accumulating.run.spec.accumulate = true;
  EXPECT_FALSE(keeps(accumulating));
}

TEST_F(GangWorkerTest, KeepsTheTimelinesOfSteps) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.timeline = {.begin_unix = 5, .spans = {{0, 1, 2}}};
  executor_.run_result.seconds = 3;
  GangStep traced = ToStep(1);
  traced.run.traceparent = "00-ab-cd-01";
  const auto unasked = Step(Call(1), traced);
  ASSERT_THAT(unasked, IsOk());
  EXPECT_THAT(unasked->run.timeline.spans, IsEmpty()) << "nobody asked";
  EXPECT_TRUE(executor_.last_run().timeline);
  EXPECT_FALSE(executor_.last_run().timeline_by_operator);
  GangStep asked = ToStep(2);
  asked.run.spec.timeline = true;
  EXPECT_THAT(Step(Call(1), asked)->run.timeline.spans, SizeIs(1));
  EXPECT_TRUE(executor_.last_run().timeline_by_operator);

  const auto timeline = worker_.Timeline(Call(1), 1);
  ASSERT_THAT(timeline, IsOk());
  EXPECT_EQ(timeline->program, "p");
  EXPECT_EQ(timeline->traceparent, "00-ab-cd-01");
  EXPECT_EQ(timeline->run, executor_.run_result.timeline);
  EXPECT_EQ(timeline->run_nanos, 3'000'000'000);
  EXPECT_GT(timeline->received_unix, 0);
  EXPECT_THAT(worker_.Timeline(Call(1), 2), IsOk());
  EXPECT_THAT(worker_.Timeline(Call(1), 3),
              StatusIs(StatusCode::kNotFound, testing::_));
}

// Its steps have numbers of their own.
TEST_F(GangWorkerTest, ANewGangHasNoTimelinesYet) {
  ASSERT_THAT(Join(1), IsOk());
  Start(Call(1), ToStep(1));
  ASSERT_THAT(worker_.Read(Call(1), ParameterKey{"w"}), IsOk());  // behind it
  EXPECT_THAT(worker_.Timeline(Call(1), 1), IsOk());
  ASSERT_THAT(Join(2), IsOk());
  EXPECT_THAT(worker_.Timeline(Call(1), 1),
              StatusIs(StatusCode::kAborted, testing::_));
  EXPECT_THAT(worker_.Timeline(Call(2), 1),
              StatusIs(StatusCode::kNotFound, testing::_));
}

TEST_F(GangWorkerTest, TellsHowFarMaterializingIs) {
  ASSERT_THAT(Join(1), IsOk());
  const std::pair<int64_t, int64_t> nothing, all = {8, 8};
  EXPECT_THAT(worker_.Progress(Call(1)), IsOkAndHolds(nothing));
  ASSERT_THAT(worker_.Materialize(Call(1), {}), IsOk());
  EXPECT_THAT(worker_.Progress(Call(1)), IsOkAndHolds(all));
  EXPECT_THAT(metrics_.Text(),
              AllOf(HasSubstr("materialize_bytes_total{op=\"scatter\"} 8"),
                    HasSubstr("materialize_bytes_total{op=\"read\"} 3")));
  ASSERT_THAT(Join(2), IsOk());
  EXPECT_THAT(worker_.Progress(Call(1)),
              StatusIs(StatusCode::kAborted, testing::_));
  EXPECT_THAT(worker_.Progress(Call(2)), IsOkAndHolds(nothing));
}

TEST_F(GangWorkerTest, CountsTheTimeInCollectivesByKind) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.collective_seconds.by_kind = {0, 2, 0, 0};
  ASSERT_THAT(Step(1), IsOk());
  EXPECT_THAT(
      metrics_.Text(),
      AllOf(HasSubstr("wait_seconds_sum{collective=\"all_gather\"} 2"),
            Not(HasSubstr("wait_seconds_sum{collective=\"all_reduce\"}"))));
}

TEST_F(GangWorkerTest, StepsAreAnsweredInOrder) {
  ASSERT_THAT(Join(1), IsOk());
  std::vector<int> order;
  for (int i = 0; i < 4; ++i) {
    absl::StatusOr<GangStep> step = ToStep(i + 1);
    if (i == 2) step = absl::InvalidArgumentError("unreadable");
    worker_.Step(Call(1), std::move(step),
                 [&order, i](absl::StatusOr<StepOutcome> outcome) {
                   order.push_back(i);
                   EXPECT_EQ(outcome.ok(), i < 2) << outcome.status();
                 });
  }
  worker_.Drain();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Step(4), HasMetadata("expected", "3"));
}

TEST_F(GangWorkerTest, SameStepOfTheSameRequestIsTakenOnce) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.seconds = 3;
  ASSERT_THAT(Step(Call(1, "r1"), ToStep(1)), IsOk());
  executor_.run_result.seconds = 4;
  for (int i = 0; i < 2; ++i) {
    const auto again = Step(Call(1, "r1"), ToStep(1));
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(again->run.seconds, 3);
    EXPECT_THAT(again->run.ran.counts, SizeIs(1));
  }
  EXPECT_THAT(Step(Call(1, "r2"), ToStep(1)), HasReason("STEP_OUT_OF_TURN"));
  EXPECT_THAT(Step(Call(1, ""), ToStep(1)), HasReason("STEP_OUT_OF_TURN"));
  EXPECT_THAT(CallsInGang(), SizeIs(3)) << "run, agree, commit";
  // One request may be of many steps.
  ASSERT_THAT(Step(Call(1, "r1"), ToStep(2)), IsOk());
  EXPECT_THAT(Step(Call(1, "r1"), ToStep(1)), HasMetadata("expected", "3"));
}

TEST_F(GangWorkerTest, StepOutOfTurnDoesNothing) {
  ASSERT_THAT(Join(1), IsOk());
  for (int i = 0; i < 2; ++i) {
    const auto early = Step(2);
    EXPECT_THAT(early, StatusIs(StatusCode::kAborted, HasSubstr("got: 2")));
    EXPECT_THAT(early, HasReason("STEP_OUT_OF_TURN"));
    EXPECT_THAT(early, HasMetadata("expected", "1"));
  }
  EXPECT_THAT(CallsInGang(), IsEmpty());
  ASSERT_THAT(Step(1), IsOk());
  EXPECT_THAT(Step(1), HasMetadata("expected", "2"));
  EXPECT_THAT(CallsInGang(), SizeIs(3));
}

TEST_F(GangWorkerTest, OwnErrorIsAnsweredAndTold) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_status = absl::NotFoundError("no such upload");
  executor_.peers = Verdict::kDiscard;
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Step(1), StatusIs(StatusCode::kNotFound, "no such upload"));
  }
  EXPECT_THAT(CallsInGang(), ElementsAre("run p of ", "agree to discard",
                                         "run p of ", "agree to discard"));
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("steps_total{phase=\"train\",result=\"failed\"} 2"));
}

TEST_F(GangWorkerTest, OwnErrorIsAnsweredWhereNobodyCanBeTold) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_status = absl::NotFoundError("no such upload");
  executor_.agree_status = absl::FailedPreconditionError("out of step");
  EXPECT_THAT(Step(1), StatusIs(StatusCode::kNotFound, "no such upload"));
}

TEST_F(GangWorkerTest, StepThatAnotherRankCannotCommitIsDiscarded) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.peers = Verdict::kDiscard;
  for (int i = 0; i < 2; ++i) {
    const auto failed = Step(1);
    EXPECT_THAT(failed, HasReason("PEER_FAILED"));
    EXPECT_THAT(failed, StatusIs(StatusCode::kFailedPrecondition,
                                 HasSubstr("step 1: expected")));
  }
  EXPECT_THAT(Step(2), HasMetadata("expected", "1"));
  EXPECT_THAT(CallsInGang(),
              ElementsAre("run p of ", "agree to commit", "discard",
                          "run p of ", "agree to commit", "discard"));
  executor_.peers = Verdict::kCommit;
  EXPECT_THAT(Step(1), IsOk());
}

TEST_F(GangWorkerTest, StepWhoseCollectivesDifferIsCommittedNowhere) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.ran.hash = 1;
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Step(1), HasReason("COLLECTIVES_DIFFER"));
  }
  EXPECT_THAT(CallsInGang(),
              ElementsAre("run p of ", "discard", "agree to discard",
                          "run p of ", "discard", "agree to discard"));
}

TEST_F(GangWorkerTest, UpdateThatWouldFailIsFoundBeforeTheAgreement) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.check_commit_status = absl::FailedPreconditionError("not SGD");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Step(1), StatusIs(StatusCode::kFailedPrecondition, "not SGD"));
  }
  EXPECT_THAT(CallsInGang(),
              ElementsAre("run p of ", "agree to discard", "discard",
                          "run p of ", "agree to discard", "discard"));
}

TEST_F(GangWorkerTest, PeerThatGoesDuringTheAgreementEndsTheStep) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.agree_status = absl::UnavailableError("a peer is gone");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Step(1), StatusIs(StatusCode::kUnavailable, "a peer is gone"));
  }
  EXPECT_THAT(CallsInGang(), Not(Contains(HasSubstr("commit with"))));
}

TEST_F(GangWorkerTest, CommitThatFailsBehindTheAgreementCountsAsNone) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.commit_status = absl::InternalError("out of memory");
  EXPECT_THAT(Step(1), StatusIs(StatusCode::kInternal, "out of memory"));
  EXPECT_THAT(Step(2), HasMetadata("expected", "1"));
  EXPECT_EQ(CallsInGang().back(), "discard");
}

TEST_F(GangWorkerTest, StepsOfAnOldGangDoNothing) {
  ASSERT_THAT(Join(2), IsOk());
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Step(Call(1), ToStep(1)), HasReason("STALE_EPOCH"));
  }
  EXPECT_THAT(CallsInGang(), IsEmpty());
}

TEST_F(GangWorkerTest, StepsThatWaitBehindANewGangAreRefused) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.block_run = std::make_shared<absl::Notification>();
  executor_.run_began = std::make_shared<absl::Notification>();
  Start(Call(1), ToStep(1));
  executor_.run_began->WaitForNotification();
  Start(Call(1), ToStep(2));
  EXPECT_THAT(Join(2), IsOk());
  Start(Call(1), ToStep(1));
  worker_.Drain();
  EXPECT_THAT(answers_[0], StatusIs(StatusCode::kUnavailable, "aborted"));
  EXPECT_THAT(answers_[1], HasReason("STALE_EPOCH"));
  EXPECT_THAT(answers_[2], HasReason("STALE_EPOCH"));
  executor_.block_run = nullptr;
  executor_.run_began = nullptr;
  EXPECT_THAT(Step(Call(2), ToStep(1)), IsOk()) << "numbers begin anew";
}

TEST_F(GangWorkerTest, StepsOfAGangThatWasNotFormedFail) {
  executor_.join_status = absl::UnavailableError("a peer is missing");
  EXPECT_THAT(Join(1), StatusIs(StatusCode::kUnavailable, HasSubstr("peer")));
  EXPECT_THAT(Step(1), StatusIs(StatusCode::kUnavailable, HasSubstr("peer")));
}

TEST_F(GangWorkerTest, AbortEndsAStepAndThoseBehindIt) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.block_run = std::make_shared<absl::Notification>();
  executor_.run_began = std::make_shared<absl::Notification>();
  Start(Call(1), ToStep(1));
  executor_.run_began->WaitForNotification();
  Start(Call(1), ToStep(2));
  EXPECT_THAT(worker_.Abort(Call(1), "a peer is lost"), IsOk());
  worker_.Drain();
  EXPECT_THAT(answers_[0], StatusIs(StatusCode::kUnavailable, "aborted"));
  EXPECT_THAT(answers_[1], HasReason("STEP_OUT_OF_TURN"));
}

TEST_F(GangWorkerTest, DrainWaitsForStepsThatAreQueued) {
  ASSERT_THAT(Join(1), IsOk());
  for (uint64_t number = 1; number <= 20; ++number) {
    Start(Call(1), ToStep(number));
  }
  worker_.Drain();
  EXPECT_THAT(answers_, Each(IsOk()));
  EXPECT_THAT(Step(21), IsOk()) << "a worker that drains serves its gang";
}

TEST_F(GangWorkerTest, StepsAndNumberedActionsShareTheirNumbers) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(worker_.Run(Call(1), Train(1)), IsOk());
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 1}), IsOk());
  EXPECT_THAT(Step(Call(1, "r"), ToStep(2)), IsOk());
  EXPECT_THAT(worker_.Commit(Call(1), {.step = 3, .reset_optimizer = true}),
              IsOk());
  EXPECT_THAT(Step(Call(1, "r"), ToStep(2)), HasMetadata("expected", "4"));
  EXPECT_THAT(Step(Call(1, "r"), ToStep(3)), HasMetadata("expected", "4"));
  EXPECT_THAT(Step(4), IsOk());
}

}  // namespace
}  // namespace shardplane
