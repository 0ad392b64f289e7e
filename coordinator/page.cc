#include "coordinator/page.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "coordinator/digest.h"

namespace shardplane {
namespace {

constexpr int kDefaultSize = 50;
constexpr int kMaxSize = 1000;

std::string CheckOf(absl::string_view collection, absl::string_view last) {
  return Digest(absl::StrCat("page token of ", collection, "/", last))
      .substr(0, 8);
}

absl::Status BadToken(absl::string_view token, absl::string_view collection) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("page_token: expected a next_page_token of ", collection,
                   ", got: \"", token.substr(0, 64), "\""),
      {.reason = "PAGE_TOKEN_INVALID", .metadata = {{"field", "page_token"}}});
}

}  // namespace

absl::StatusOr<PageRequest> ParsePage(int size, absl::string_view token,
                                      absl::string_view collection) {
  if (size < 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("page_size: expected 0 or more, got: ", size),
        {.reason = "PAGE_SIZE_INVALID", .metadata = {{"field", "page_size"}}});
  }
  PageRequest page{.size = size == 0 ? kDefaultSize : std::min(size, kMaxSize)};
  if (token.empty()) {
    return page;
  }
  std::string text;
  if (!absl::WebSafeBase64Unescape(token, &text)) {
    return BadToken(token, collection);
  }
  const std::vector<std::string> parts =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  if (parts.size() != 2 || parts[0] != CheckOf(collection, parts[1])) {
    return BadToken(token, collection);
  }
  page.after = parts[1];
  return page;
}

std::string MakePageToken(absl::string_view collection,
                          absl::string_view last) {
  return absl::WebSafeBase64Escape(
      absl::StrCat(CheckOf(collection, last), "/", last));
}

}  // namespace shardplane
