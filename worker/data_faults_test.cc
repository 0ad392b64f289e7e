#include "worker/data_faults.h"

#include <string>

#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(DataFaultsTest, TheFirstCountsAndSaysWhere) {
  EXPECT_EQ(DataFaults::Current(), nullptr);
  {
    DataFaults faults;
    ASSERT_EQ(DataFaults::Current(), &faults);
    faults.Locate("nothing was noted yet");
    EXPECT_TRUE(faults.status().ok());
    faults.Note("Index 9");
    faults.Locate("embedding");
    faults.Note("Target 7");
    faults.Locate("loss");
    EXPECT_EQ(faults.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(faults.status().message()), "embedding: Index 9");
    EXPECT_EQ(GetErrorInfo(faults.status())->reason, "INDEX_OUT_OF_RANGE");
  }
  EXPECT_EQ(DataFaults::Current(), nullptr);
}

}  // namespace
}  // namespace shardplane
