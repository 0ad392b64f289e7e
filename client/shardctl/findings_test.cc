#include "client/shardctl/findings.h"

#include "client/shardctl/shardctl_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Severity = Finding::Severity;

// A cluster with nothing wrong.
ClusterSnapshot Healthy() {
  return {.now = absl::Now(),
          .workers = {WorkerOf("a", pb::WorkerNode::STATE_READY),
                      WorkerOf("b", pb::WorkerNode::STATE_READY)},
          .deployments = {DeploymentOf("mlp")}};
}

// "ERROR worker-state workers/a: is LOST"
std::vector<std::string> Found(const ClusterSnapshot& snapshot) {
  std::vector<std::string> lines;
  for (const Finding& finding : Diagnose(snapshot)) {
    EXPECT_NE(finding.hint, "");
    lines.push_back(std::string(SeverityText(finding.severity)) + " " +
                    finding.check + " " + finding.resource + ": " +
                    finding.what);
  }
  return lines;
}

TEST(FindingsTest, NothingIsWrong) { EXPECT_THAT(Found(Healthy()), IsEmpty()); }

TEST(FindingsTest, WorkersThatDoNotServe) {
  ClusterSnapshot snapshot = Healthy();
  snapshot.deployments.clear();
  snapshot.workers = {WorkerOf("a", pb::WorkerNode::STATE_DRAINING),
                      WorkerOf("b", pb::WorkerNode::STATE_LOST),
                      WorkerOf("c", pb::WorkerNode::STATE_FENCED),
                      WorkerOf("d", pb::WorkerNode::STATE_RETIRED)};
  snapshot.workers[1].set_state_reason("its lease ran out");
  EXPECT_THAT(Found(snapshot),
              ElementsAre("ERROR worker-state workers/b: is LOST: its lease "
                          "ran out",
                          "ERROR worker-state workers/c: is FENCED",
                          "ERROR capacity workers: none of them is READY",
                          "WARNING worker-state workers/a: is DRAINING"));
}

TEST(FindingsTest, NoWorkers) {
  EXPECT_THAT(Found({.now = absl::Now()}),
              ElementsAre("WARNING capacity workers: there are none"));
}

TEST(FindingsTest, DeploymentsThatFailedOrAreHeldUp) {
  ClusterSnapshot snapshot = Healthy();
  pb::Deployment failed = DeploymentOf("failed");
  failed.set_state(pb::Deployment::STATE_FAILED);
  failed.set_state_reason("workers/x was lost");
  pb::Deployment waits = DeploymentOf("waits");
  waits.set_state(pb::Deployment::STATE_AWAITING_DATA);
  pb::Deployment fresh = waits;
  *fresh.mutable_update_time() = TimestampAgo(absl::Minutes(1));
  snapshot.deployments = {waits, failed, fresh};
  EXPECT_THAT(
      Found(snapshot),
      ElementsAre("ERROR deployment-state deployments/failed: is FAILED: "
                  "workers/x was lost",
                  "WARNING deployment-state deployments/waits: awaits its "
                  "parameters for 1h"));
}

TEST(FindingsTest, AGangThatHasLostAWorker) {
  ClusterSnapshot snapshot = Healthy();
  snapshot.workers[1].set_state(pb::WorkerNode::STATE_LOST);
  EXPECT_THAT(Found(snapshot),
              ElementsAre("ERROR worker-state workers/b: is LOST",
                          "ERROR gang deployments/mlp: its workers/b is LOST"));
}

TEST(FindingsTest, OperationsThatFailedOrDoNotComeOn) {
  ClusterSnapshot snapshot = Healthy();
  pb::Operation running = OperationOf(pb::Operation::STATE_RUNNING, 40);
  *running.mutable_update_time() = TimestampAgo(absl::Minutes(5));
  pb::Operation fresh = running;
  *fresh.mutable_update_time() = TimestampAgo(absl::Seconds(5));
  pb::Operation failed = OperationOf(pb::Operation::STATE_FAILED, 40);
  failed.mutable_error()->set_message("no room");
  snapshot.operations = {running, fresh, failed};
  EXPECT_THAT(Found(snapshot),
              ElementsAre("WARNING operation operations/o1: has not come on "
                          "for 5m, at 40% of \"placing parameters\"",
                          "WARNING operation operations/o1: has FAILED: no "
                          "room"));
}

pb::StepTimeline TimelineOf(const std::vector<int64_t>& compute, int step = 9) {
  pb::StepTimeline timeline;
  timeline.set_name("deployments/mlp/steps/" + std::to_string(step) +
                    "/timeline");
  for (const int64_t nanos : compute) {
    pb::RankTimeline* rank = timeline.add_ranks();
    rank->set_worker("workers/" + std::to_string(timeline.ranks_size()));
    pb::Timeline::Span* span = rank->mutable_run()->add_spans();
    span->set_kind(pb::Timeline::KIND_COMPUTE);
    span->set_duration_nanos(nanos);
  }
  return timeline;
}

TEST(FindingsTest, ARankThatIsSlow) {
  ClusterSnapshot snapshot = Healthy();
  snapshot.timelines = {
      TimelineOf({1'000'000, 1'100'000, 2'200'000, 900'000}, 9),
      TimelineOf({1'000'000, 1'000'000, 1'600'000, 900'000}, 8)};
  EXPECT_THAT(Found(snapshot),
              ElementsAre("WARNING slow-rank workers/3: computed 2.2 times as "
                          "long as the median rank in "
                          "deployments/mlp/steps/9/timeline, and too long in "
                          "each of the last steps"));
  // Of two, and of next to nothing.
  const pb::StepTimeline two = TimelineOf({1'000'000, 1'600'000});
  snapshot.timelines = {two, two};
  EXPECT_EQ(Found(snapshot).size(), 1u);
  snapshot.timelines = {TimelineOf({1'000'000, 1'400'000}),
                        TimelineOf({1'000, 90'000}), TimelineOf({1'000'000})};
  EXPECT_THAT(Found(snapshot), IsEmpty());
}

TEST(FindingsTest, ARankThatWasSlowOnce) {
  const pb::StepTimeline slow = TimelineOf({1'000'000, 2'000'000}, 9);
  ClusterSnapshot snapshot = Healthy();
  snapshot.timelines = {slow};
  EXPECT_THAT(Found(snapshot), IsEmpty());
  snapshot.timelines = {slow, slow, TimelineOf({1'000'000, 1'000'000}, 7)};
  EXPECT_THAT(Found(snapshot), IsEmpty());
  // Another deployment's steps say nothing of it.
  snapshot.timelines = {slow, TimelineOf({1'000'000, 2'000'000}, 8)};
  snapshot.timelines.emplace_back().set_name(
      "deployments/other/steps/1/timeline");
  EXPECT_EQ(Found(snapshot).size(), 1u);
}

TEST(FindingsTest, PlansWarnAndOldCoordinatorsAreNoted) {
  ClusterSnapshot snapshot = Healthy();
  pb::Diagnostic* diagnostic =
      snapshot.deployments[0].mutable_report()->add_diagnostics();
  diagnostic->set_severity(pb::SEVERITY_WARNING);
  diagnostic->set_reason("PATTERN_WITHOUT_MATCH");
  diagnostic->set_message("\"x\" matches nothing");
  *snapshot.deployments[0].mutable_report()->add_diagnostics() = *diagnostic;
  snapshot.deployments[0]
      .mutable_report()
      ->mutable_diagnostics(1)
      ->set_severity(pb::SEVERITY_NOTE);
  snapshot.lacking = {"ListOperations"};
  EXPECT_THAT(Found(snapshot),
              ElementsAre("NOTE plan deployments/mlp: PATTERN_WITHOUT_MATCH: "
                          "\"x\" matches nothing",
                          "NOTE version coordinator: is older than this "
                          "shardctl, and lacks ListOperations"));
}

}  // namespace
}  // namespace shardplane
