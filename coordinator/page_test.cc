#include "coordinator/page.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(PageTest, SizesHaveADefaultAndALimit) {
  EXPECT_EQ(ParsePage(0, "", "workers")->size, 50);
  EXPECT_EQ(ParsePage(7, "", "workers")->size, 7);
  EXPECT_EQ(ParsePage(100000, "", "workers")->size, 1000);
  EXPECT_THAT(
      ParsePage(-1, "", "workers"),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: -1")),
            HasMetadata("field", "page_size")));
}

TEST(PageTest, TokenComesBack) {
  EXPECT_EQ(ParsePage(1, MakePageToken("workers", "w/0"), "workers")->after,
            "w/0");
}

TEST(PageTest, TokensAreBoundToTheirCollection) {
  for (const std::string& token :
       {MakePageToken("deployments", "w0"), std::string("w0"),
        std::string("%%%"), std::string("AAAA"),
        MakePageToken("workers", "w0") + "AAAA"}) {
    EXPECT_THAT(ParsePage(1, token, "workers"),
                AllOf(HasReason("PAGE_TOKEN_INVALID"),
                      HasMetadata("field", "page_token")))
        << token;
  }
}

}  // namespace
}  // namespace shardplane
