#include "coordinator/http_path.h"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/errors.h"

namespace shardplane {
namespace {

bool MatchSegments(absl::string_view pattern, absl::string_view text) {
  const std::vector<absl::string_view> wanted = absl::StrSplit(pattern, '/');
  const std::vector<absl::string_view> got = absl::StrSplit(text, '/');
  if (wanted.size() != got.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == "*" ? got[i].empty() : wanted[i] != got[i]) return false;
  }
  return true;
}

absl::StatusOr<std::string> Decode(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    if (i + 2 >= text.size() || !absl::ascii_isxdigit(text[i + 1]) ||
        !absl::ascii_isxdigit(text[i + 2])) {
      return MakeError(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("a % of a query needs two hexadecimal digits; got: ",
                       text),
          {.reason = "QUERY_INVALID", .metadata = {}});
    }
    out += absl::HexStringToBytes(text.substr(i + 1, 2));
    i += 2;
  }
  return out;
}

}  // namespace

std::optional<HttpParameters> MatchPath(absl::string_view pattern,
                                        absl::string_view path) {
  const size_t open = pattern.find('{');
  if (open == absl::string_view::npos) {
    return pattern == path ? std::optional<HttpParameters>(HttpParameters{})
                           : std::nullopt;
  }
  const size_t equals = pattern.find('=', open);
  const size_t close = pattern.find('}', equals);
  if (!absl::ConsumePrefix(&path, pattern.substr(0, open)) ||
      !absl::ConsumeSuffix(&path, pattern.substr(close + 1)) ||
      !MatchSegments(pattern.substr(equals + 1, close - equals - 1), path)) {
    return std::nullopt;
  }
  return HttpParameters{
      {std::string(pattern.substr(open + 1, equals - open - 1)),
       std::string(path)}};
}

absl::StatusOr<HttpParameters> ParseQuery(absl::string_view query) {
  HttpParameters parameters;
  for (absl::string_view item : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    SP_ASSIGN_OR_RETURN(std::string name, Decode(parts.first));
    SP_ASSIGN_OR_RETURN(std::string value, Decode(parts.second));
    parameters.push_back({std::move(name), std::move(value)});
  }
  return parameters;
}

}  // namespace shardplane
