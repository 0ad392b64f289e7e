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

TEST(DataFaultsTest, DeferredChecksAreMadeEachTime) {
  DataFaults faults(/*defers=*/true);
  EXPECT_TRUE(faults.defers());
  std::string wrong;
  int made = 0;
  faults.Defer([&] {
    ++made;
    return std::string();
  });
  faults.Locate("embedding");
  faults.Defer([&] { return wrong; });
  faults.Locate("loss");
  faults.Locate("what comes after");
  EXPECT_EQ(made, 0);
  EXPECT_TRUE(faults.status().ok());
  EXPECT_EQ(made, 1);
  wrong = "Target 7";
  EXPECT_EQ(std::string(faults.status().message()), "loss: Target 7");
  EXPECT_EQ(GetErrorInfo(faults.status())->reason, "INDEX_OUT_OF_RANGE");
  const auto deferred = faults.TakeDeferred();
  EXPECT_TRUE(faults.status().ok());
  EXPECT_EQ(std::string(MakeChecks(deferred).message()), "loss: Target 7");
  wrong.clear();
  EXPECT_TRUE(MakeChecks(deferred).ok());
}

TEST(DataFaultsTest, WhatWasNotedCountsBeforeChecks) {
  DataFaults faults;
  EXPECT_FALSE(faults.defers());
  faults.Defer([] { return std::string("Target 7"); });
  faults.Note("Index 9");
  EXPECT_EQ(std::string(faults.status().message()), "Index 9");
}

}  // namespace
}  // namespace shardplane
