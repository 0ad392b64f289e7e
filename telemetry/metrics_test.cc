#include "telemetry/metrics.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "telemetry/metric_families.h"

namespace shardplane {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Lines(const Metrics& metrics) {
  return absl::StrSplit(metrics.Text(), '\n');
}

// One value of each family, with labels as its row says.
void FillAll(Metrics& metrics) {
  metrics.Add(Counter::kSteps, {"train", "ok"});
  metrics.Add(Counter::kCollectives, {"all_reduce", "forward"}, 2);
  metrics.Add(Counter::kCollectiveBytes, {"all_reduce", "nccl"}, 4096);
  metrics.Add(Counter::kProcessGroups, {"shm"});
  metrics.Add(Counter::kStepStreams, {"local"});
  metrics.Add(Counter::kMaterializeBytes, {"scatter"}, 320);
  metrics.Add(Counter::kPlanUnmatchedPatterns);
  metrics.Add(Counter::kWorkerLost, {"lease_expired"});
  metrics.Add(Counter::kEvents, {"WORKER_LOST"});
  metrics.Add(Counter::kGrpcServerCallStarted, {"Step"});
  metrics.Set(Gauge::kWorkers, {"READY"}, 4);
  metrics.Set(Gauge::kCoordinatorEpoch, {}, 7);
  metrics.Set(Gauge::kCoordinatorIsLeader, {}, 1);
  metrics.Set(Gauge::kDeployments, {"ready"}, 2);
  metrics.Set(Gauge::kDeploymentLastStep, {"mlp"}, 12);
  metrics.Set(Gauge::kOperations, {"materialize", "running"}, 1);
  metrics.Set(Gauge::kWatchStreams, {}, 3);
  metrics.Set(Gauge::kDeviceMemoryUsed, {}, 1 << 20);
  metrics.Set(Gauge::kDeviceMemoryTotal, {}, 1 << 30);
  metrics.Set(Gauge::kDeviceMemoryTaken, {"GPU-1"}, 1 << 29);
  metrics.Set(Gauge::kDeviceUtilization, {"GPU-1"}, 0.75);
  metrics.Set(Gauge::kDeviceMemoryUtilization, {"GPU-1"}, 0.2);
  metrics.Observe(Histogram::kStepDuration, {"train"}, absl::Milliseconds(3));
  metrics.Observe(Histogram::kMaterializeDuration, {}, absl::Seconds(1));
  metrics.Observe(Histogram::kPlanResolve, {}, absl::Microseconds(150));
  metrics.Observe(Histogram::kStepDispatch, {}, absl::Microseconds(80));
  metrics.Observe(Histogram::kStepOverhead, {}, 0.04);
  metrics.Observe(Histogram::kCollectiveWait, {"all_reduce"},
                  absl::Microseconds(30));
  metrics.Observe(Histogram::kGrpcServerCallDuration, {"Step", "OK"},
                  absl::Milliseconds(4));
}

TEST(MetricsTest, BuildInfoSaysWhatRuns) {
  const Metrics metrics({.component = "worker", .version = "1.2"});
  EXPECT_THAT(
      Lines(metrics),
      Contains("shardplane_build_info{component=\"worker\",version=\"1.2\"} "
               "1"));
}

TEST(MetricsTest, CountersAddUpByLabels) {
  Metrics metrics({.component = "coordinator"});
  metrics.Add(Counter::kSteps, {"train", "ok"});
  metrics.Add(Counter::kSteps, {"train", "ok"}, 2);
  metrics.Add(Counter::kSteps, {"train", "failed"});
  const std::vector<std::string> lines = Lines(metrics);
  EXPECT_THAT(
      lines,
      Contains("shardplane_steps_total{phase=\"train\",result=\"ok\"} 3"));
  EXPECT_THAT(
      lines,
      Contains("shardplane_steps_total{phase=\"train\",result=\"failed\"} 1"));
}

TEST(MetricsTest, CountersNeverFall) {
  Metrics metrics({.component = "worker"});
  metrics.Add(Counter::kCollectiveBytes, {"broadcast", "nccl"}, 10);
  metrics.Add(Counter::kCollectiveBytes, {"broadcast", "nccl"}, -4);
  EXPECT_THAT(
      Lines(metrics),
      Contains("shardplane_collective_bytes_total{collective=\"broadcast\","
               "transport=\"nccl\"} 10"));
}

TEST(MetricsTest, GaugesKeepTheLastValue) {
  Metrics metrics({.component = "coordinator"});
  metrics.Set(Gauge::kWorkers, {"READY"}, 4);
  metrics.Set(Gauge::kWorkers, {"READY"}, 3);
  EXPECT_THAT(Lines(metrics),
              Contains("shardplane_workers{state=\"READY\"} 3"));
}

TEST(MetricsTest, HistogramsPutTimesIntoBuckets) {
  Metrics metrics({.component = "coordinator"});
  metrics.Observe(Histogram::kPlanResolve, {}, absl::Milliseconds(3));
  const std::vector<std::string> lines = Lines(metrics);
  EXPECT_THAT(
      lines,
      Contains("shardplane_plan_resolve_seconds_bucket{le=\"0.002\"} 0"));
  EXPECT_THAT(
      lines,
      Contains("shardplane_plan_resolve_seconds_bucket{le=\"0.005\"} 1"));
  EXPECT_THAT(lines, Contains("shardplane_plan_resolve_seconds_count 1"));
}

TEST(MetricsTest, RatiosHaveBucketsUpToOne) {
  Metrics metrics({.component = "coordinator"});
  metrics.Observe(Histogram::kStepOverhead, {}, 0.25);
  metrics.Observe(Histogram::kStepOverhead, {}, 1.0);
  const std::vector<std::string> lines = Lines(metrics);
  EXPECT_THAT(lines,
              Contains("shardplane_step_overhead_ratio_bucket{le=\"0.2\"} 0"));
  EXPECT_THAT(lines,
              Contains("shardplane_step_overhead_ratio_bucket{le=\"0.3\"} 1"));
  EXPECT_THAT(lines,
              Contains("shardplane_step_overhead_ratio_bucket{le=\"1\"} 2"));
  EXPECT_THAT(lines, Contains("shardplane_step_overhead_ratio_sum 1.25"));
}

TEST(MetricsTest, FamiliesWithoutLabelsAreThereFromTheStart) {
  const Metrics coordinator({.component = "coordinator"});
  EXPECT_THAT(Lines(coordinator),
              Contains("shardplane_plan_unmatched_patterns_total 0"));
  EXPECT_THAT(Lines(coordinator), Contains("shardplane_coordinator_epoch 0"));
}

TEST(MetricsTest, AWorkerDoesNotShowWhatACoordinatorKnows) {
  const Metrics worker({.component = "worker"});
  EXPECT_THAT(worker.Text(), Not(HasSubstr("shardplane_coordinator_epoch")));
}

TEST(MetricsTest, TooManySeriesCountUnderOther) {
  Metrics metrics({.component = "coordinator"});
  for (int i = 0; i < Metrics::kMaxSeries + 5; ++i) {
    metrics.Add(Counter::kWorkerLost, {absl::StrCat("reason", i)});
  }
  EXPECT_THAT(Lines(metrics),
              Contains("shardplane_worker_lost_total{reason=\"other\"} 5"));
}

TEST(MetricsTest, ARemovedSeriesIsShownNoMore) {
  Metrics metrics({.component = "coordinator"});
  metrics.Set(Gauge::kDeploymentLastStep, {"a"}, 3);
  metrics.Set(Gauge::kDeploymentLastStep, {"b"}, 4);
  metrics.Remove(Gauge::kDeploymentLastStep, {"a"});
  metrics.Remove(Gauge::kDeploymentLastStep, {"never set"});
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("deployment=\"a\"")));
  EXPECT_THAT(Lines(metrics),
              Contains("shardplane_deployment_last_step{deployment=\"b\"} 4"));
}

TEST(MetricsTest, ARemovedSeriesMakesRoom) {
  Metrics metrics({.component = "coordinator"});
  for (int i = 0; i < 2 * Metrics::kMaxSeries; ++i) {
    metrics.Set(Gauge::kDeploymentLastStep, {absl::StrCat("d", i)}, i);
    metrics.Remove(Gauge::kDeploymentLastStep, {absl::StrCat("d", i)});
  }
  metrics.Set(Gauge::kDeploymentLastStep, {"last"}, 1);
  EXPECT_THAT(
      Lines(metrics),
      Contains("shardplane_deployment_last_step{deployment=\"last\"} 1"));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("\"other\"")));
}

TEST(MetricsTest, ThreadsMaySetAndRemoveAtOnce) {
  Metrics metrics({.component = "coordinator"});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int n = 0; n < 1000; ++n) {
        metrics.Set(Gauge::kDeploymentLastStep, {"shared"}, n);
        metrics.Remove(Gauge::kDeploymentLastStep, {"shared"});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("shared")));
}

TEST(MetricsTest, WrongNumberOfLabelsStopsNothing) {
  Metrics metrics({.component = "coordinator"});
  metrics.Add(Counter::kSteps, {"train"});
  metrics.Add(Counter::kWorkerLost, {"crash", "surplus"});
  const std::vector<std::string> lines = Lines(metrics);
  EXPECT_THAT(
      lines,
      Contains("shardplane_steps_total{phase=\"train\",result=\"other\"} 1"));
  EXPECT_THAT(lines,
              Contains("shardplane_worker_lost_total{reason=\"crash\"} 1"));
}

TEST(MetricsTest, ThreadsMayCountAtOnce) {
  Metrics metrics({.component = "worker"});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int n = 0; n < 1000; ++n) {
        metrics.Add(Counter::kCollectives, {"all_reduce", "forward"});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Lines(metrics),
              Contains("shardplane_collectives_total{collective=\"all_"
                       "reduce\",phase=\"forward\"} 4000"));
}

TEST(MetricsTest, TextHasAFixedOrder) {
  Metrics metrics({.component = "coordinator"});
  for (const char* reason : {"c", "a", "b"}) {
    metrics.Add(Counter::kWorkerLost, {reason});
  }
  EXPECT_THAT(metrics.Text(),
              HasSubstr("shardplane_worker_lost_total{reason=\"a\"} 1\n"
                        "shardplane_worker_lost_total{reason=\"b\"} 1\n"
                        "shardplane_worker_lost_total{reason=\"c\"} 1\n"));
}

// Prometheus's own linter: names, units, suffixes, help texts, format.
TEST(MetricsTest, PromtoolAcceptsTheText) {
  Metrics metrics({.component = "coordinator"});
  FillAll(metrics);
  const std::string path = absl::StrCat(::testing::TempDir(), "/metrics.txt");
  std::ofstream(path) << metrics.Text();
  const std::string command =
      absl::StrCat("promtool check metrics < '", path, "' 2>&1");
  FILE* const promtool = popen(command.c_str(), "r");
  ASSERT_NE(promtool, nullptr);
  std::string output;
  char buffer[256];
  while (fgets(buffer, sizeof(buffer), promtool) != nullptr) output += buffer;
  EXPECT_EQ(pclose(promtool), 0) << output;
  EXPECT_EQ(output, "");
}

TEST(MetricFamiliesTest, EveryRowShowsUnderItsName) {
  Metrics metrics({.component = "coordinator"});
  FillAll(metrics);
  const std::string text = metrics.Text();
  const auto expect_shown = [&text](const MetricFamilyRow& row) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("# HELP ", row.name, " ", row.help,
                                             "\n")));
    for (const absl::string_view label : row.labels) {
      EXPECT_TRUE(absl::StrContains(text, label)) << row.name << " " << label;
    }
  };
  for (const MetricFamilyRow& row : kCounterRows) expect_shown(row);
  for (const MetricFamilyRow& row : kGaugeRows) expect_shown(row);
  for (const MetricFamilyRow& row : kHistogramRows) expect_shown(row);
}

TEST(MetricFamiliesTest, NamesAreUnique) {
  absl::btree_set<absl::string_view> names;
  const auto expect_new = [&names](const MetricFamilyRow& row) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
  };
  for (const MetricFamilyRow& row : kCounterRows) expect_new(row);
  for (const MetricFamilyRow& row : kGaugeRows) expect_new(row);
  for (const MetricFamilyRow& row : kHistogramRows) expect_new(row);
}

}  // namespace
}  // namespace shardplane
