#include "common/flops.h"

#include "gtest/gtest.h"

namespace shardplane {
namespace {

const DeviceMesh kFour = *DeviceMesh::Create({{"tp", 4}});
const DeviceMesh kSquare = *DeviceMesh::Create({{"dp", 2}, {"tp", 2}});

TEST(FlopCountTest, WorkWithoutACutIsAlikeOnEveryRank) {
  FlopCount count;
  count.Add({}, {10, 20});
  count.Add({{7, {}}}, {1, 2});
  EXPECT_EQ(count.On(kFour, {0}), (Flops{11, 22}));
  EXPECT_EQ(count.On(kFour, {3}), (Flops{11, 22}));
}

// Five rows of 6 flops over four ranks: 2, 2, 1 and none.
TEST(FlopCountTest, UnevenCutsDifferByRank) {
  FlopCount count;
  count.Add({{5, {0}}}, {30, 60});
  EXPECT_EQ(count.On(kFour, {0}), (Flops{12, 24}));
  EXPECT_EQ(count.On(kFour, {1}), (Flops{12, 24}));
  EXPECT_EQ(count.On(kFour, {2}), (Flops{6, 12}));
  EXPECT_EQ(count.On(kFour, {3}), (Flops{0, 0}));
}

// 3 x 5 x 2 flops: rows over dp are 2 and 1, columns over tp 3 and 2.
TEST(FlopCountTest, TwoFactorsAreCutApart) {
  FlopCount count;
  count.Add({{3, {0}}, {5, {1}}}, {30, 0});
  EXPECT_EQ(count.On(kSquare, {0, 0}).forward, 2 * 3 * 2);
  EXPECT_EQ(count.On(kSquare, {0, 1}).forward, 2 * 2 * 2);
  EXPECT_EQ(count.On(kSquare, {1, 0}).forward, 1 * 3 * 2);
  EXPECT_EQ(count.On(kSquare, {1, 1}).forward, 1 * 2 * 2);
}

TEST(FlopCountTest, TwoMeshDimsCutOneFactorInTheirOrder) {
  FlopCount count;
  count.Add({{5, {1, 0}}}, {5, 0});  // tp: 3, 2; within, dp: 2, 1 and 1, 1
  EXPECT_EQ(count.On(kSquare, {0, 0}).forward, 2);
  EXPECT_EQ(count.On(kSquare, {1, 0}).forward, 1);
  EXPECT_EQ(count.On(kSquare, {0, 1}).forward, 1);
}

TEST(FlopCountTest, NothingIsNothing) {
  FlopCount count;
  count.Add({{0, {0}}}, {0, 0});
  EXPECT_EQ(count.On(kFour, {0}), Flops());
}

}  // namespace
}  // namespace shardplane
