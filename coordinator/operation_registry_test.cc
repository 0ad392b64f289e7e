#include "coordinator/operation_registry.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr OperationKind kKind = OperationKind::kMaterialize;

class OperationRegistryTest : public ::testing::Test {
 protected:
  absl::StatusOr<OperationRecord> Begin(const std::string& id,
                                        const std::string& deployment) {
    return registry_.Begin({id}, "uid-" + id, kKind, {deployment}, now_);
  }
  OperationState StateOf(const std::string& id) {
    return registry_.Find({id})->state;
  }

  OperationRegistry registry_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(OperationRegistryTest, OneOfAKindIsDoneToADeploymentAtATime) {
  ASSERT_THAT(Begin("o1", "a"), IsOk());
  EXPECT_THAT(Begin("o2", "a"),
              ::testing::AllOf(HasReason("OPERATION_RUNNING"),
                               HasMetadata("operation", "operations/o1")));
  EXPECT_THAT(Begin("o3", "b"), IsOk());
  registry_.End({"o1"}, absl::OkStatus(), now_);
  EXPECT_THAT(Begin("o2", "a"), IsOk());
}

TEST_F(OperationRegistryTest, TellsHowFarItIsAndHowItEnded) {
  ASSERT_THAT(Begin("o1", "a"), IsOk());
  const uint64_t revision = registry_.Find({"o1"})->revision;
  registry_.Progress({"o1"}, {"placing", 3, 10}, now_);
  EXPECT_EQ(registry_.Find({"o1"})->progress.bytes_done, 3);
  EXPECT_EQ(registry_.Find({"o1"})->revision, revision + 1);
  registry_.Progress({"o1"}, {"placing", 3, 10}, now_);
  EXPECT_EQ(registry_.Find({"o1"})->revision, revision + 1) << "nothing new";
  now_ += absl::Seconds(5);
  registry_.End({"o1"}, absl::OkStatus(), now_);

  const OperationRecord ended = *registry_.Find({"o1"});
  EXPECT_EQ(ended.state, OperationState::kSucceeded);
  EXPECT_EQ(ended.progress.bytes_done, 10);
  EXPECT_EQ(ended.end_time, now_);
  // What comes late changes nothing.
  registry_.Progress({"o1"}, {"placing", 4, 10}, now_);
  registry_.End({"o1"}, absl::InternalError("late"), now_);
  EXPECT_EQ(registry_.Find({"o1"})->revision, ended.revision);
}

TEST_F(OperationRegistryTest, AnErrorIsAFailureUnlessItWasCancelled) {
  ASSERT_THAT(Begin("o1", "a"), IsOk());
  ASSERT_THAT(Begin("o2", "b"), IsOk());
  EXPECT_THAT(registry_.Cancel({"o2"}), IsOkAndHolds(true));
  EXPECT_EQ(StateOf("o2"), OperationState::kRunning) << "until it has ended";
  for (const std::string id : {"o1", "o2"}) {
    registry_.End({id}, absl::UnavailableError("w0 is gone"), now_);
  }
  EXPECT_EQ(StateOf("o1"), OperationState::kFailed);
  EXPECT_EQ(registry_.Find({"o1"})->error.message(), "w0 is gone");
  EXPECT_EQ(StateOf("o2"), OperationState::kCancelled);
  EXPECT_THAT(registry_.Cancel({"o2"}), IsOkAndHolds(false));
  EXPECT_THAT(registry_.Cancel({"o9"}), HasReason("OPERATION_NOT_FOUND"));
}

// It came too late.
TEST_F(OperationRegistryTest, WhatSucceededWasNotCancelled) {
  ASSERT_THAT(Begin("o1", "a"), IsOk());
  ASSERT_THAT(registry_.Cancel({"o1"}), IsOkAndHolds(true));
  registry_.End({"o1"}, absl::OkStatus(), now_);
  EXPECT_EQ(StateOf("o1"), OperationState::kSucceeded);
}

TEST_F(OperationRegistryTest, IsForgottenADayAfterItsEnd) {
  ASSERT_THAT(Begin("o1", "a"), IsOk());
  ASSERT_THAT(Begin("o2", "b"), IsOk());
  registry_.End({"o1"}, absl::OkStatus(), now_);
  EXPECT_THAT(registry_.Expire(now_ + absl::Hours(24)), IsEmpty());
  EXPECT_THAT(registry_.Expire(now_ + absl::Hours(25)),
              ElementsAre(OperationId{"o1"}));
  EXPECT_THAT(registry_.Find({"o1"}), HasReason("OPERATION_NOT_FOUND"));
  EXPECT_THAT(registry_.Find({"o2"}), IsOk()) << "it still runs";
}

}  // namespace
}  // namespace shardplane
