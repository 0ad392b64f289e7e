#include "coordinator/http_path.h"

#include <optional>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::Pair;

constexpr char kSteps[] = "/v1/{parent=deployments/*}/steps";

TEST(MatchPathTest, WithoutAField) {
  EXPECT_THAT(MatchPath("/v1/workers", "/v1/workers"), Optional(IsEmpty()));
  EXPECT_EQ(MatchPath("/v1/workers", "/v1/workers/"), std::nullopt);
  EXPECT_EQ(MatchPath("/v1/workers", "/v1/worker"), std::nullopt);
}

TEST(MatchPathTest, TakesTheField) {
  EXPECT_THAT(MatchPath("/v1/{name=workers/*}", "/v1/workers/w0"),
              Optional(ElementsAre(Pair("name", "workers/w0"))));
  EXPECT_THAT(MatchPath(kSteps, "/v1/deployments/d/steps"),
              Optional(ElementsAre(Pair("parent", "deployments/d"))));
  EXPECT_THAT(MatchPath("/v1/{name=deployments/*/steps/*}",
                        "/v1/deployments/d/steps/7"),
              Optional(ElementsAre(Pair("name", "deployments/d/steps/7"))));
  EXPECT_THAT(MatchPath("/v1/{name=deployments/*}:explain",
                        "/v1/deployments/d:explain"),
              Optional(ElementsAre(Pair("name", "deployments/d"))));
}

TEST(MatchPathTest, AStarIsOneSegmentThatIsNotEmpty) {
  for (const char* path :
       {"/v1/deployments//steps", "/v1/deployments/a/b/steps",
        "/v1/deployments/steps", "/v1/deployments/d/step",
        "/v2/deployments/d/steps", "/steps", ""}) {
    EXPECT_EQ(MatchPath(kSteps, path), std::nullopt) << path;
  }
}

TEST(ParseQueryTest, Decodes) {
  EXPECT_THAT(ParseQuery("a=1&b=x%20y+z&&c&a=%3D%26=2"),
              IsOkAndHolds(ElementsAre(Pair("a", "1"), Pair("b", "x y z"),
                                       Pair("c", ""), Pair("a", "=&=2"))));
  EXPECT_THAT(ParseQuery(""), IsOkAndHolds(IsEmpty()));
}

TEST(ParseQueryTest, RefusesHalfAByte) {
  for (const char* query : {"a=%", "a=%2", "%zz=1", "a=%2g"}) {
    EXPECT_THAT(ParseQuery(query), StatusIs(absl::StatusCode::kInvalidArgument,
                                            ::testing::HasSubstr("got: ")))
        << query;
  }
}

}  // namespace
}  // namespace shardplane
