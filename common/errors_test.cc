#include "common/errors.h"

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::Eq;
using ::testing::Optional;

TEST(MakeError, KeepsCodeMessageAndInfo) {
  const ErrorInfo info{"STYLE_CONFLICT",
                       {{"fqn", "layers.0"}, {"pattern", "layers.*"}}};

  const absl::Status status =
      MakeError(absl::StatusCode::kInvalidArgument, "two styles", info);

  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument, Eq("two styles")));
  EXPECT_THAT(GetErrorInfo(status), Optional(info));
}

TEST(MakeError, KeepsBytesThatTheEncodingUsesItself) {
  const ErrorInfo info{"R:1",
                       {{"", ""},
                        {"3:abc", std::string("\0:12:\n", 6)},
                        {"errors", "first\nsecond: got \"x\""}}};

  EXPECT_THAT(GetErrorInfo(MakeError(absl::StatusCode::kInternal, "m", info)),
              Optional(info));
}

TEST(GetErrorInfo, IsNothingForOtherStatuses) {
  EXPECT_EQ(GetErrorInfo(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(GetErrorInfo(absl::InternalError("plain")), std::nullopt);
}

TEST(WithMetadata, AddsAnEntry) {
  const absl::Status status = WithMetadata(
      MakeError(absl::StatusCode::kAborted, "m", {"STEP_OUT_OF_TURN", {}}),
      "expected", "7");

  EXPECT_THAT(status, HasReason("STEP_OUT_OF_TURN"));
  EXPECT_THAT(status, HasMetadata("expected", Eq("7")));
}

TEST(WithMetadata, KeepsTheEntryThatIsThere) {
  const absl::Status status = WithMetadata(
      MakeError(absl::StatusCode::kAborted, "m", {"R", {{"field", "inner"}}}),
      "field", "outer");

  EXPECT_THAT(status, HasMetadata("field", Eq("inner")));
}

TEST(WithMetadata, GivesAPlainStatusItsCodeAsReason) {
  const absl::Status status =
      WithMetadata(absl::NotFoundError("no such worker"), "resource", "w1");

  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound, Eq("no such worker")));
  EXPECT_THAT(status, HasReason("NOT_FOUND"));
  EXPECT_THAT(status, HasMetadata("resource", Eq("w1")));
}

TEST(WithMetadata, LeavesOkAlone) {
  EXPECT_THAT(WithMetadata(absl::OkStatus(), "a", "b"), IsOk());
}

absl::Status Half(int n, int* half) {
  const auto halve = [](int value) -> absl::StatusOr<int> {
    if (value % 2 != 0) return absl::InvalidArgumentError("odd");
    return value / 2;
  };
  SP_ASSIGN_OR_RETURN(*half, halve(n));
  SP_RETURN_IF_ERROR(absl::OkStatus());
  return absl::OkStatus();
}

TEST(Macros, AssignOrReturn) {
  int half = 0;
  EXPECT_THAT(Half(8, &half), IsOk());
  EXPECT_EQ(half, 4);
  EXPECT_THAT(Half(7, &half),
              StatusIs(absl::StatusCode::kInvalidArgument, Eq("odd")));
}

}  // namespace
}  // namespace shardplane
