#include "client/shardctl/failure.h"

#include "client/error_info.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

absl::Status Refused() {
  google::rpc::ErrorInfo info;
  info.set_reason("TOO_FEW_WORKERS");
  (*info.mutable_metadata())["field"] = "mesh";
  (*info.mutable_metadata())["fqn"] = "up";
  (*info.mutable_metadata())["remedy"] = "start more workers";
  return ClientError(absl::StatusCode::kFailedPrecondition, info,
                     "expected 4 free workers, got: 2");
}

TEST(FailureTest, DetailsAndHint) {
  EXPECT_EQ(FailureText(Refused()),
            "error: expected 4 free workers, got: 2\n"
            "  reason: TOO_FEW_WORKERS (FAILED_PRECONDITION)\n"
            "  field: mesh\n"
            "  fqn: up\n"
            "hint: start more workers\n");
}

TEST(FailureTest, UsageErrorsHaveNoReason) {
  EXPECT_EQ(FailureText(UsageError("no such flag", "see help")),
            "error: no such flag\nhint: see help\n");
}

TEST(FailureTest, AHintIsAddedWhereThereIsNone) {
  EXPECT_EQ(FailureText(WithHint(absl::NotFoundError("none"), "look there")),
            "error: none\n  reason: NOT_FOUND\nhint: look there\n");
  EXPECT_EQ(FailureText(WithHint(Refused(), "other")), FailureText(Refused()));
  EXPECT_TRUE(WithHint(absl::OkStatus(), "x").ok());
}

TEST(FailureTest, AnErrorWithoutASentence) {
  EXPECT_EQ(FailureText(absl::UnimplementedError("")),
            "error: the coordinator does not say why\n"
            "  reason: UNIMPLEMENTED\n"
            "hint: the coordinator may be older than this shardctl, and lack "
            "the method\n");
}

TEST(FailureTest, ExitCodes) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kDone);
  EXPECT_EQ(ExitCodeOf(Refused()), ExitCode::kFailed);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), ExitCode::kFailed);
  EXPECT_EQ(ExitCodeOf(UsageError("")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), ExitCode::kTimedOut);
}

}  // namespace
}  // namespace shardplane
