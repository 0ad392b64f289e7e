#include "worker/gang_fence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/errors.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

constexpr uint64_t kIncarnation = 7;

GangCall Call(uint64_t epoch, const char* deployment = "deployments/d",
              uint64_t incarnation = kIncarnation) {
  return {.deployment = deployment,
          .epoch = epoch,
          .incarnation = incarnation,
          .request_id = ""};
}

class GangFenceTest : public testing::Test {
 protected:
  absl::Status Join(const GangCall& call) {
    SP_RETURN_IF_ERROR(fence_.CheckJoin(call, &join_));
    fence_.Enter(call);
    return absl::OkStatus();
  }

  GangFence fence_{kIncarnation};
  GangFence::Join join_ = GangFence::Join::kNew;
};

TEST_F(GangFenceTest, NoGangIsAFailedPrecondition) {
  EXPECT_THAT(fence_.Check(Call(1)),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("no gang")));
}

TEST_F(GangFenceTest, CallsOfTheGangPass) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  EXPECT_THAT(fence_.Check(Call(3)), IsOk());
}

TEST_F(GangFenceTest, OlderEpochIsAborted) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  for (const absl::Status& status :
       {fence_.Check(Call(2)), Join(Call(2)), fence_.CheckLeave(Call(2)),
        fence_.CheckAbort(Call(2))}) {
    EXPECT_THAT(status, StatusIs(StatusCode::kAborted, HasSubstr("got: 2")));
    EXPECT_THAT(status, HasReason("STALE_EPOCH"));
    EXPECT_THAT(status, HasMetadata("expected", "3"));
  }
}

TEST_F(GangFenceTest, NewerEpochMustBeJoinedFirst) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  EXPECT_THAT(fence_.Check(Call(4)),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 3")));
  ASSERT_THAT(Join(Call(4)), IsOk());
  EXPECT_EQ(join_, GangFence::Join::kNew);
  EXPECT_THAT(fence_.Check(Call(4)), IsOk());
}

TEST_F(GangFenceTest, JoinIsRepeatable) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  ASSERT_THAT(Join(Call(3)), IsOk());
  EXPECT_EQ(join_, GangFence::Join::kAgain);
}

TEST_F(GangFenceTest, AnotherProcessIsMeant) {
  EXPECT_THAT(Join(Call(1, "deployments/d", kIncarnation + 1)),
              HasReason("STALE_INCARNATION"));
}

TEST_F(GangFenceTest, EpochBelongsToOneDeployment) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  EXPECT_THAT(fence_.Check(Call(3, "deployments/other")),
              StatusIs(StatusCode::kAborted, HasSubstr("deployments/other")));
}

TEST_F(GangFenceTest, EpochThatWasLeftIsOver) {
  ASSERT_THAT(Join(Call(3)), IsOk());
  fence_.Leave();
  EXPECT_THAT(fence_.CheckLeave(Call(3)), IsOk());
  EXPECT_THAT(fence_.Check(Call(3)),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("no gang")));
  EXPECT_THAT(Join(Call(3)), StatusIs(StatusCode::kAborted, HasSubstr("left")));
  EXPECT_THAT(Join(Call(4)), IsOk());
}

TEST_F(GangFenceTest, EpochZeroIsNone) {
  EXPECT_THAT(Join(Call(0)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("gang.epoch")));
}

}  // namespace
}  // namespace shardplane
