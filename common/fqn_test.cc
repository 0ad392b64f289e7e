#include "common/fqn.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(FqnTest, JoinsAndSplits) {
  EXPECT_EQ(JoinFqn("layers.0", "net1"), "layers.0.net1");
  EXPECT_EQ(JoinFqn("", "net1"), "net1");
  EXPECT_THAT(SplitFqn("layers.0.net1"), testing::Pair("layers.0", "net1"));
  EXPECT_THAT(SplitFqn("net1"), testing::Pair("", "net1"));
}

TEST(IsWithinTest, GoesByNames) {
  EXPECT_TRUE(IsWithin("", "a"));
  EXPECT_TRUE(IsWithin("a.1", "a.1"));
  EXPECT_TRUE(IsWithin("a.1", "a.1.b"));
  EXPECT_FALSE(IsWithin("a.1", "a.10"));
  EXPECT_FALSE(IsWithin("a.1", "a"));
}

TEST(CommonModuleTest, IsTheNearestThatHoldsAll) {
  EXPECT_EQ(CommonModule({"a.b.q", "a.b.k"}), "a.b");
  EXPECT_EQ(CommonModule({"a.b", "a.b.k"}), "a.b");
  EXPECT_EQ(CommonModule({"a.1", "a.10"}), "a");
  EXPECT_EQ(CommonModule({"a", "b"}), "");
  EXPECT_EQ(CommonModule({"a"}), "a");
  EXPECT_EQ(CommonModule({}), "");
}

}  // namespace
}  // namespace shardplane
