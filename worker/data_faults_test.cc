#include "worker/data_faults.h"

#include <string>

#include "ATen/core/Tensor.h"
#include "ATen/ops/zeros.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

at::Tensor False() { return at::zeros({}, at::kBool); }

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
  const at::Tensor wrong[2] = {False(), False()};
  faults.Defer(wrong[0], [] { return std::string("Index 9"); });
  faults.Locate("embedding");
  faults.Defer(wrong[1], [] { return std::string("Target 7"); });
  faults.Locate("loss");
  faults.Locate("what comes after");
  EXPECT_TRUE(faults.status().ok());
  wrong[1].fill_(true);
  EXPECT_EQ(std::string(faults.status().message()), "loss: Target 7");
  EXPECT_EQ(GetErrorInfo(faults.status())->reason, "INDEX_OUT_OF_RANGE");
  const DataFaults::Checks checks = faults.TakeDeferred();
  EXPECT_TRUE(faults.status().ok());
  EXPECT_EQ(std::string(MakeChecks(checks).message()), "loss: Target 7");
  checks.bad.fill_(true);  // as the same work does that runs again
  EXPECT_EQ(std::string(MakeChecks(checks).message()), "embedding: Index 9");
  checks.bad.fill_(false);
  EXPECT_TRUE(MakeChecks(checks).ok());
}

TEST(DataFaultsTest, WhatWasNotedCountsBeforeChecks) {
  DataFaults faults;
  EXPECT_FALSE(faults.defers());
  faults.Defer(False().fill_(true), [] { return std::string("Target 7"); });
  faults.Note("Index 9");
  EXPECT_EQ(std::string(faults.status().message()), "Index 9");
}

}  // namespace
}  // namespace shardplane
