// Matchers that tests of every folder share.
#ifndef SHARDPLANE_TESTS_MATCHERS_H_
#define SHARDPLANE_TESTS_MATCHERS_H_

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// Of a Status or StatusOr: its code, and a matcher of its message.
MATCHER_P2(StatusIs, code, message,
           absl::StatusCodeToString(code) + " with a message that " +
               ::testing::DescribeMatcher<std::string>(message)) {
  const absl::Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()),
                                       result_listener);
}

// Of a Status or StatusOr made by MakeError: its reason.
MATCHER_P(HasReason, reason, "has the reason " + std::string(reason)) {
  const std::optional<ErrorInfo> info = GetErrorInfo(StatusOf(arg));
  *result_listener << (info.has_value() ? info->reason : "no reason");
  return info.has_value() && info->reason == reason;
}

// Of a Status or StatusOr made by MakeError: one entry of its metadata.
MATCHER_P2(HasMetadata, key, value,
           "has metadata " + std::string(key) + " that " +
               ::testing::DescribeMatcher<std::string>(value)) {
  const std::optional<ErrorInfo> info = GetErrorInfo(StatusOf(arg));
  if (!info.has_value() || !info->metadata.contains(key)) {
    *result_listener << "no metadata " << key;
    return false;
  }
  return ::testing::ExplainMatchResult(value, info->metadata.at(key),
                                       result_listener);
}

// Of a StatusOr: OK, and a matcher of its value.
MATCHER_P(IsOkAndHolds, value, "is OK and holds what was expected") {
  if (!arg.ok()) {
    *result_listener << arg.status().ToString();
    return false;
  }
  using Value = std::decay_t<decltype(*arg)>;
  return ::testing::ExplainMatchResult(
      ::testing::SafeMatcherCast<const Value&>(value), *arg, result_listener);
}

// Of a DTensorSpec: its text form, "[S(0), R]".
MATCHER_P(PlacementsAre, text, "is placed " + std::string(text)) {
  *result_listener << ToString(arg);
  return ToString(arg) == text;
}

// The name of a TEST_P's case from its `name` in words: "two dims" becomes
// TwoDims. Case structs have no operator<<; gtest then prints their bytes,
// which valgrind and sanitizers dislike: give them one, or PrintTo.
template <typename Case>
std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  std::string name;
  bool upper = true;
  for (const char c : std::string(info.param.name)) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9');
    if (!letter) {
      upper = true;
      continue;
    }
    name +=
        upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    upper = false;
  }
  return name;
}

}  // namespace shardplane

#endif  // SHARDPLANE_TESTS_MATCHERS_H_
