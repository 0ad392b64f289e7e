#include "client/shardctl/suggest.h"

#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(SuggestTest, TheClosest) {
  const std::vector<std::string> names = {"get", "top", "describe", "delete"};
  EXPECT_EQ(Suggestion("gte", names), "get");
  EXPECT_EQ(Suggestion("desribe", names), "describe");
  EXPECT_EQ(Suggestion("delte", names), "delete");
  EXPECT_EQ(Suggestion("xyz", names), "");
  EXPECT_EQ(Suggestion("a", {}), "");
}

TEST(SuggestTest, AsASentence) {
  EXPECT_EQ(DidYouMean("gte", {"get"}), " Did you mean \"get\"?");
  EXPECT_EQ(DidYouMean("xyz", {"get"}), "");
}

}  // namespace
}  // namespace shardplane
