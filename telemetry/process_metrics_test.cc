#include "telemetry/process_metrics.h"

#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/metric_family.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::Pair;

TEST(ParseProcessStatTest, ReadsFieldsAfterANameWithParentheses) {
  ProcessStat stat;
  ASSERT_TRUE(ParseProcessStat(
      "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 23 13 14 20 0 4 0 5000 4096 25 18",
      &stat));
  EXPECT_EQ(stat, (ProcessStat{.cpu_ticks = 123,
                               .threads = 4,
                               .start_ticks = 5000,
                               .virtual_bytes = 4096,
                               .resident_pages = 25}));
}

TEST(ParseProcessStatTest, RefusesShortAndMalformedLines) {
  ProcessStat stat;
  EXPECT_FALSE(ParseProcessStat("", &stat));
  EXPECT_FALSE(ParseProcessStat("7 (a) S 1 2", &stat));
  EXPECT_FALSE(ParseProcessStat(
      "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 23 13 14 20 0 4 0 5000 4096 25 18",
      &stat));
}

TEST(CollectProcessMetricsTest, ReadsThisProcess) {
  absl::btree_map<std::string, double> values;
  for (const prometheus::MetricFamily& family : CollectProcessMetrics()) {
    ASSERT_EQ(family.metric.size(), 1u);
    values[family.name] = family.metric[0].gauge.value;
  }
  EXPECT_THAT(values,
              ElementsAre(Pair("process_cpu_seconds_total", ::testing::Ge(0)),
                          Pair("process_max_fds", Gt(2)),
                          Pair("process_open_fds", Gt(2)),
                          Pair("process_resident_memory_bytes", Gt(1e5)),
                          Pair("process_start_time_seconds", Gt(1.6e9)),
                          Pair("process_threads", Gt(0)),
                          Pair("process_virtual_memory_bytes", Gt(1e5))));
}

}  // namespace
}  // namespace shardplane
