#include "common/link_costs.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

TEST(LinkCostsTest, ReadsTransportsAndNumbers) {
  const auto shm = ParseLinkCosts("shm");
  const auto nccl = ParseLinkCosts("nccl");
  const auto gloo = ParseLinkCosts("gloo");
  ASSERT_TRUE(shm.ok() && nccl.ok() && gloo.ok());
  EXPECT_LT(nccl->us_per_mib, shm->us_per_mib);
  EXPECT_LT(shm->latency_us, gloo->latency_us);
  const auto own = ParseLinkCosts("latency_us=9.5,us_per_mib=300");
  ASSERT_THAT(own, IsOk());
  EXPECT_EQ(*own, (LinkCosts{.latency_us = 9.5, .us_per_mib = 300}));
  const auto beside = ParseLinkCosts("latency_us=9.5,us_per_mib=300,beside=.5");
  ASSERT_THAT(beside, IsOk());
  EXPECT_EQ(beside->beside, 0.5);
}

TEST(LinkCostsTest, RefusesTheRest) {
  for (const char* text :
       {"", "SHM", "latency_us=1", "us_per_mib=1,latency_us=1",
        "latency_us=x,us_per_mib=1", "latency_us=-1,us_per_mib=1",
        "latency_us=1,us_per_mib=inf", "latency_us=1,us_per_mib=1,more=1",
        "latency_us=1,us_per_mib=nan", "latency_us=1,us_per_mib=1,beside=1.5",
        "latency_us=1,us_per_mib=1,beside=1,"}) {
    EXPECT_THAT(ParseLinkCosts(text),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(std::string("got: \"") + text + "\"")))
        << text;
  }
}

TEST(LinkCostsTest, NumbersHaveTheirRange) {
  EXPECT_THAT(CheckLinkCosts({.latency_us = 0, .us_per_mib = 0, .beside = 1}),
              IsOk());
  EXPECT_THAT(CheckLinkCosts({.latency_us = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "link costs: latency_us is finite and not negative; "
                       "got: -1"));
  EXPECT_THAT(CheckLinkCosts({.beside = 2}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "link costs: beside is from 0 to 1; got: 2"));
}

// A mebibyte among four ranks: three quarters of it, twice for all_reduce.
TEST(LinkCostsTest, IsWhatARingMoves) {
  const LinkCosts costs{.latency_us = 10, .us_per_mib = 100};
  const double mib = 1 << 20;
  EXPECT_EQ(CostUs(costs, RedistributeKind::kAllReduce, 4, mib), 160);
  EXPECT_EQ(CostUs(costs, RedistributeKind::kAllGather, 4, mib), 85);
  EXPECT_EQ(CostUs(costs, RedistributeKind::kReduceScatter, 4, mib), 85);
  EXPECT_EQ(CostUs(costs, RedistributeKind::kAllToAll, 2, mib), 60);
  EXPECT_EQ(CostUs(costs, RedistributeKind::kAllReduce, 1, mib), 0);
  EXPECT_EQ(CostUs(costs, RedistributeKind::kSlice, 4, mib), 0);
}

}  // namespace
}  // namespace shardplane
