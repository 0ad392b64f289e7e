#include "worker/gpu_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "worker/fake_nvml_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kUtilization[] =
    "shardplane_device_utilization_ratio{gpu=\"GPU-00010203-0405-0607-0809-"
    "0a0b0c0d0eff\"} 0.75\n";
constexpr char kMemoryUtilization[] =
    "shardplane_device_memory_utilization_ratio{gpu=\"GPU-00010203-0405-0607-"
    "0809-0a0b0c0d0eff\"} 0.2\n";
constexpr char kMemoryTaken[] =
    "shardplane_device_memory_taken_bytes{gpu=\"GPU-00010203-0405-0607-0809-"
    "0a0b0c0d0eff\"} 50000000000\n";

class GpuMetricsTest : public testing::Test {
 protected:
  // What a scrape shows.
  std::string Scrape(GpuMetrics& gpu) {
    gpu.Measure();
    return metrics_.Text();
  }
  GpuMetrics::Options Options(const std::string& library = kFakeNvml) {
    return {.uuid = kFakeGpu,
            .metrics = &metrics_,
            .library = library,
            .log = [this](absl::string_view text) { log_.emplace_back(text); }};
  }

  Metrics metrics_{{.component = "worker"}};
  std::vector<std::string> log_;
};

TEST_F(GpuMetricsTest, ShowsWhatNvmlTells) {
  GpuMetrics gpu(Options());
  EXPECT_THAT(Scrape(gpu),
              AllOf(HasSubstr(kUtilization), HasSubstr(kMemoryUtilization),
                    HasSubstr(kMemoryTaken)));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(GpuMetricsTest, WithoutNvmlThereIsNothingButOneLine) {
  GpuMetrics gpu(Options("worker/libno_such_library.so"));
  for (int scrape = 0; scrape < 3; ++scrape) {
    EXPECT_THAT(Scrape(gpu), Not(HasSubstr("{gpu=")));
  }
  EXPECT_THAT(log_, ElementsAre(HasSubstr("libno_such_library.so")));
}

TEST_F(GpuMetricsTest, WhatAGpuDoesNotTellIsLeftOut) {
  const FakeNvml fake("nvmlDeviceGetUtilizationRates=3");
  GpuMetrics gpu(Options());
  for (int scrape = 0; scrape < 3; ++scrape) {
    EXPECT_THAT(Scrape(gpu), AllOf(HasSubstr(kMemoryTaken),
                                   Not(HasSubstr("utilization_ratio{"))));
  }
  EXPECT_THAT(log_, ElementsAre(HasSubstr("Not Supported (3)")));
}

TEST_F(GpuMetricsTest, AGpuThatIsLostShowsNoOldFigures) {
  GpuMetrics gpu(Options());
  EXPECT_THAT(Scrape(gpu), HasSubstr(kMemoryTaken));
  {
    const FakeNvml fake("nvmlDeviceGetHandleByUUID=15");
    EXPECT_THAT(Scrape(gpu), Not(HasSubstr("{gpu=")));
  }
  EXPECT_THAT(log_, ElementsAre(HasSubstr("GPU is lost (15)")));
  EXPECT_THAT(Scrape(gpu),
              AllOf(HasSubstr(kUtilization), HasSubstr(kMemoryTaken)));
}

TEST_F(GpuMetricsTest, AnUnknownGpuShowsNothing) {
  GpuMetrics::Options options = Options();
  options.uuid = "GPU-ffffffff-0405-0607-0809-0a0b0c0d0e0f";
  GpuMetrics gpu(std::move(options));
  EXPECT_THAT(Scrape(gpu), Not(HasSubstr("{gpu=")));
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr("GPU-ffffffff"),
                                      HasSubstr("Not Found (6)"))));
}

}  // namespace
}  // namespace shardplane
