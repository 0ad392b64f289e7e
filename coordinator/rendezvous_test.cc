#include "coordinator/rendezvous.h"

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const DeploymentId kDeployment{"d"};

class RendezvousTest : public ::testing::Test {
 protected:
  RendezvousTest() {
    rendezvous_.Open(kDeployment, GangEpoch{3},
                     {Incarnation{10}, Incarnation{11}});
  }
  static RendezvousMember Rank(int rank, uint64_t epoch = 3) {
    return {kDeployment, GangEpoch{epoch},
            Incarnation{static_cast<uint64_t>(10 + rank)}, rank};
  }
  auto Get(std::vector<std::string> keys,
           absl::Time deadline = absl::InfiniteFuture()) {
    return rendezvous_.Get(Rank(0), keys, deadline);
  }

  Rendezvous rendezvous_;
};

TEST_F(RendezvousTest, OneRankGetsWhatAnotherSets) {
  EXPECT_THAT(rendezvous_.Set(Rank(1), "a", "1"), IsOk());
  EXPECT_THAT(rendezvous_.Set(Rank(1), "b", std::string("\0\xff", 2)), IsOk());
  EXPECT_THAT(Get({"b", "a"}),
              IsOkAndHolds(ElementsAre(std::string("\0\xff", 2), "1")));
  EXPECT_THAT(Get({}), IsOkAndHolds(IsEmpty()));
}

TEST_F(RendezvousTest, GetWaitsForAllKeys) {
  std::thread waiter([&] {
    EXPECT_THAT(Get({"a", "b"}), IsOkAndHolds(ElementsAre("1", "2")));
  });
  EXPECT_THAT(rendezvous_.Set(Rank(1), "a", "1"), IsOk());
  EXPECT_THAT(rendezvous_.Set(Rank(1), "b", "2"), IsOk());
  waiter.join();
}

TEST_F(RendezvousTest, GetNamesTheKeyThatDidNotCome) {
  EXPECT_THAT(rendezvous_.Set(Rank(1), "a", "1"), IsOk());
  EXPECT_THAT(Get({"a", "b"}, absl::InfinitePast()),
              AllOf(StatusIs(absl::StatusCode::kDeadlineExceeded,
                             HasSubstr("got: \"b\"")),
                    HasReason("RENDEZVOUS_TIMEOUT")));
}

TEST_F(RendezvousTest, CloseEndsWaitersWithTheReason) {
  std::thread closer([&] {
    rendezvous_.Close(kDeployment, GangEpoch{3}, "worker w1 is LOST");
  });
  EXPECT_THAT(Get({"a"}), StatusIs(absl::StatusCode::kAborted, ::testing::_));
  closer.join();
  EXPECT_THAT(rendezvous_.Set(Rank(0), "a", "1"),
              HasReason("GANG_MEMBER_STALE"));
}

TEST_F(RendezvousTest, NewEpochStartsEmptyAndFencesTheOld) {
  EXPECT_THAT(rendezvous_.Set(Rank(0), "a", "1"), IsOk());
  rendezvous_.Open(kDeployment, GangEpoch{4}, {Incarnation{10}});
  EXPECT_THAT(rendezvous_.Set(Rank(0, 3), "a", "1"),
              AllOf(StatusIs(absl::StatusCode::kAborted,
                             HasSubstr("expected epoch 4, got: epoch 3")),
                    HasReason("GANG_MEMBER_STALE")));
  const auto check =
      rendezvous_.Check(Rank(0, 4), std::vector<std::string>{"a"});
  ASSERT_THAT(check, IsOk());
  EXPECT_FALSE(check->found);
  EXPECT_EQ(check->total_keys, 0);
  rendezvous_.Close(kDeployment, GangEpoch{3}, "an old one");
  EXPECT_THAT(rendezvous_.Set(Rank(0, 4), "a", "1"), IsOk());
}

TEST_F(RendezvousTest, MemberMustBeOfTheGang) {
  for (const RendezvousMember& member :
       {RendezvousMember{DeploymentId{"e"}, GangEpoch{3}, Incarnation{10}, 0},
        RendezvousMember{kDeployment, GangEpoch{3}, Incarnation{11}, 0},
        RendezvousMember{kDeployment, GangEpoch{3}, Incarnation{10}, 2},
        RendezvousMember{kDeployment, GangEpoch{3}, Incarnation{10}, -1}}) {
    EXPECT_THAT(rendezvous_.Set(member, "a", "1"),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("got: ")));
  }
}

TEST_F(RendezvousTest, AddsFromZero) {
  EXPECT_THAT(rendezvous_.Add(Rank(0), "n", 2), IsOkAndHolds(2));
  EXPECT_THAT(rendezvous_.Add(Rank(1), "n", -5), IsOkAndHolds(-3));
  EXPECT_THAT(Get({"n"}), IsOkAndHolds(ElementsAre("-3")));
  EXPECT_THAT(rendezvous_.Set(Rank(0), "n", "word"), IsOk());
  EXPECT_THAT(rendezvous_.Add(Rank(0), "n", 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("n")));
}

TEST_F(RendezvousTest, AddWrapsInsteadOfOverflowing) {
  EXPECT_THAT(rendezvous_.Add(Rank(0), "n", INT64_MAX),
              IsOkAndHolds(INT64_MAX));
  EXPECT_THAT(rendezvous_.Add(Rank(0), "n", 1), IsOkAndHolds(INT64_MIN));
}

TEST_F(RendezvousTest, CompareSetAsTcpStore) {
  EXPECT_THAT(rendezvous_.CompareSet(Rank(0), "k", "x", "y"),
              IsOkAndHolds("x"));  // nothing there, something expected
  EXPECT_THAT(rendezvous_.CompareSet(Rank(0), "k", "", "y"), IsOkAndHolds("y"));
  EXPECT_THAT(rendezvous_.CompareSet(Rank(0), "k", "x", "z"),
              IsOkAndHolds("y"));
  EXPECT_THAT(rendezvous_.CompareSet(Rank(0), "k", "y", "z"),
              IsOkAndHolds("z"));
}

TEST_F(RendezvousTest, DeletesAndCounts) {
  ASSERT_THAT(rendezvous_.Set(Rank(0), "a", "1"), IsOk());
  ASSERT_THAT(rendezvous_.Set(Rank(0), "b", "1"), IsOk());
  auto found = rendezvous_.Delete(Rank(0), "a");
  ASSERT_THAT(found, IsOk());
  EXPECT_TRUE(found->found);
  EXPECT_EQ(found->total_keys, 1);
  found = rendezvous_.Delete(Rank(0), "a");
  ASSERT_THAT(found, IsOk());
  EXPECT_FALSE(found->found);
}

TEST_F(RendezvousTest, StoreIsBounded) {
  const std::string large(Rendezvous::kMaxBytes / 2, 'x');
  ASSERT_THAT(rendezvous_.Set(Rank(0), "a", large), IsOk());
  EXPECT_THAT(
      rendezvous_.Set(Rank(0), "b", large),
      AllOf(StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("\"b\"")),
            HasReason("RENDEZVOUS_FULL")));
  EXPECT_THAT(rendezvous_.Set(Rank(0), "a", large), IsOk());
}

}  // namespace
}  // namespace shardplane
