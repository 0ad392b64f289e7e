#include "coordinator/page.h"

#include <string>
#include <vector>

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

TEST(PageTest, PagesMakeUpTheWhole) {
  const std::vector<std::string> items = {"a", "b", "c", "d", "e"};
  for (int size = 1; size <= 6; ++size) {
    std::vector<std::string> seen;
    std::string token;
    int pages = 0;
    do {
      const auto page = ParsePage(size, token, "letters");
      ASSERT_THAT(page, IsOk());
      token = AddPage(
          items, *page, "letters",
          [](const std::string& item) -> const std::string& { return item; },
          [&seen](const std::string& item) { seen.push_back(item); });
      ++pages;
    } while (!token.empty());
    EXPECT_EQ(seen, items);
    EXPECT_EQ(pages, (5 + size - 1) / size);
  }
}

}  // namespace
}  // namespace shardplane
