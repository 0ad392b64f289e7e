#include "worker/device_memory.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

class MemoryLimitTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  const std::string root_ =
      std::string(::testing::TempDir()) +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(MemoryLimitTest, IsTheHostsWithoutALimit) {
  Write("/proc/meminfo", "MemTotal:       1000 kB\nMemFree:   10 kB\n");
  EXPECT_EQ(MemoryLimit(root_), 1'024'000);
  Write("/sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(MemoryLimit(root_), 1'024'000);
}

TEST_F(MemoryLimitTest, IsTheControlGroups) {
  Write("/proc/meminfo", "MemAvailable: 7 kB\nMemTotal:       1000 kB\n");
  Write("/sys/fs/cgroup/memory.max", "4096\n");
  EXPECT_EQ(MemoryLimit(root_), 4096);
  // Version 1 writes a very large number where there is none.
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(MemoryLimit(root_), 4096);
}

TEST_F(MemoryLimitTest, IsUnknownWhereNothingCanBeRead) {
  EXPECT_EQ(MemoryLimit(root_), 0);
}

TEST(MeasureDeviceMemoryTest, OfACpuThereIsSome) {
  EXPECT_GT(MeasureDeviceMemory("cpu").total, 0);
  EXPECT_GE(MeasureDeviceMemory("cpu").used, 0);
}

TEST(MeasureDeviceMemoryTest, OfAGpuABinaryForCpusKnowsNothing) {
  EXPECT_EQ(MeasureDeviceMemory("cuda:0").total, 0);
  EXPECT_EQ(GpuUuidOf("cuda:0"), "");
}

TEST(GpuUuidOfTest, ACpuHasNone) { EXPECT_EQ(GpuUuidOf("cpu"), ""); }

}  // namespace
}  // namespace shardplane
