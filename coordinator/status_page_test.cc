#include "coordinator/status_page.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

HttpResponse Get(absl::string_view path, absl::string_view if_none_match = "") {
  return StatusPageRoute().handle(
      {.path = path, .if_none_match = if_none_match});
}

std::string HeaderOf(const HttpResponse& response, absl::string_view name) {
  for (const auto& header : response.headers) {
    if (header.first == name) return header.second;
  }
  return "";
}

TEST(StatusPageTest, IsOneFile) {
  const HttpResponse page = Get("/");
  EXPECT_EQ(page.code, 200);
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_THAT(page.body,
              AllOf(StartsWith("<!DOCTYPE html>"), EndsWith("</html>\n"),
                    HasSubstr("<style>:root"), HasSubstr("start();"),
                    Not(HasSubstr("src=")), Not(HasSubstr("https:")),
                    Not(HasSubstr("/*STYLE*/")), Not(HasSubstr("innerHTML"))));
}

TEST(StatusPageTest, ItsPolicyAllowsItselfAlone) {
  const std::string policy = HeaderOf(Get("/"), "Content-Security-Policy");
  EXPECT_THAT(
      policy,
      AllOf(HasSubstr("default-src 'none'"), HasSubstr("script-src 'sha256-"),
            HasSubstr("style-src 'sha256-"), HasSubstr("connect-src 'self'"),
            HasSubstr("frame-ancestors 'none'"), Not(HasSubstr("*")),
            Not(HasSubstr("unsafe"))));
}

TEST(StatusPageTest, WhoHasItGetsNothing) {
  const std::string tag = HeaderOf(Get("/"), "ETag");
  EXPECT_THAT(tag, StartsWith("W/\""));
  const HttpResponse known = Get("/", absl::StrCat("\"x\", ", tag));
  EXPECT_EQ(known.code, 304);
  EXPECT_EQ(known.body, "");
  EXPECT_EQ(HeaderOf(known, "ETag"), tag);
  EXPECT_EQ(Get("/", "\"x\"").code, 200);
}

TEST(StatusPageTest, OtherPathsAreNotFound) {
  EXPECT_EQ(Get("/index.html").code, 404);
  EXPECT_EQ(Get("/favicon.ico").code, 404);
}

}  // namespace
}  // namespace shardplane
