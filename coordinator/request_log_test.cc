#include "coordinator/request_log.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kId[] = "11111111-2222-4333-8444-555555555555";
constexpr char kOther[] = "11111111-2222-4333-9444-555555555555";

class RequestLogTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Run(const std::string& id,
                                  const std::string& digest,
                                  absl::StatusOr<std::string> answer = "yes") {
    return log_.Run(id, digest, absl::InfiniteFuture(), [&] {
      ++calls_;
      return answer;
    });
  }

  int calls_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  RequestLog log_{{.window = absl::Hours(24),
                   .max_entries = 3,
                   .max_bytes = 100,
                   .clock = [this] { return now_; }}};
};

TEST_F(RequestLogTest, SameIdAndBodyGetsTheSameAnswer) {
  EXPECT_THAT(Run(kId, "body"), IsOkAndHolds("yes"));
  EXPECT_THAT(Run(kId, "body", "no"), IsOkAndHolds("yes"));
  EXPECT_EQ(calls_, 1);
}

TEST_F(RequestLogTest, IdsAreTheSameInUpperCase) {
  EXPECT_THAT(Run("AAAAAAAA-2222-4333-8444-555555555555", "body"), IsOk());
  EXPECT_THAT(Run("aaaaaaaa-2222-4333-8444-555555555555", "body"), IsOk());
  EXPECT_EQ(calls_, 1);
}

TEST_F(RequestLogTest, SameIdWithAnotherBodyIsRefused) {
  ASSERT_THAT(Run(kId, "body"), IsOk());
  EXPECT_THAT(
      Run(kId, "another"),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(kId)),
            HasReason("REQUEST_ID_REUSED"),
            HasMetadata("field", "request_id")));
  EXPECT_EQ(calls_, 1);
}

TEST_F(RequestLogTest, FailureIsTriedAnewButKeepsItsBody) {
  EXPECT_THAT(Run(kId, "body", absl::UnavailableError("later")),
              StatusIs(absl::StatusCode::kUnavailable, "later"));
  EXPECT_THAT(Run(kId, "another"), HasReason("REQUEST_ID_REUSED"));
  EXPECT_THAT(Run(kId, "body"), IsOkAndHolds("yes"));
  EXPECT_EQ(calls_, 2);
}

TEST_F(RequestLogTest, WithoutAnIdEveryCallRuns) {
  ASSERT_THAT(Run("", "body"), IsOk());
  ASSERT_THAT(Run("", "body"), IsOk());
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ(log_.size(), 0u);
}

TEST_F(RequestLogTest, SecondCallWaitsForTheFirst) {
  absl::Notification started;
  absl::Notification finish;
  std::thread first([&] {
    EXPECT_THAT(log_.Run(kId, "body", absl::InfiniteFuture(),
                         [&]() -> absl::StatusOr<std::string> {
                           started.Notify();
                           finish.WaitForNotification();
                           return "first";
                         }),
                IsOkAndHolds("first"));
  });
  started.WaitForNotification();
  EXPECT_THAT(log_.Run(kId, "body", absl::InfinitePast(),
                       [] { return std::string("second"); }),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr(kId)));
  // At once: this deadline leaves no time to wait.
  EXPECT_THAT(log_.Run(kId, "other", absl::InfinitePast(),
                       [] { return std::string("second"); }),
              HasReason("REQUEST_ID_REUSED"));
  std::thread second(
      [&] { EXPECT_THAT(Run(kId, "body", "second"), IsOkAndHolds("first")); });
  finish.Notify();
  first.join();
  second.join();
  EXPECT_EQ(calls_, 0);
}

TEST_F(RequestLogTest, ForgetsAfterTheWindow) {
  ASSERT_THAT(Run(kId, "body"), IsOk());
  now_ += absl::Hours(25);
  EXPECT_THAT(Run(kId, "another"), IsOk());
  EXPECT_EQ(calls_, 2);
}

TEST_F(RequestLogTest, KeepsAtMostSoManyEntriesAndBytes) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(Run(std::string("11111111-2222-4333-8444-55555555555") +
                        static_cast<char>('0' + i),
                    "body"),
                IsOk());
  }
  EXPECT_EQ(log_.size(), 3u);
  ASSERT_THAT(Run(kOther, "body", std::string(99, 'x')), IsOk());
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_THAT(Run(kOther, "body", "no"), IsOkAndHolds(std::string(99, 'x')));
}

struct IdCase {
  std::string name;
  std::string id;
  bool good;
  friend void PrintTo(const IdCase& c, std::ostream* out) { *out << c.name; }
};
class IdTest : public ::testing::TestWithParam<IdCase> {};
TEST_P(IdTest, IsUuid4OrRefused) {
  EXPECT_EQ(IsUuid4(GetParam().id), GetParam().good);
  RequestLog log({});
  const auto answer = log.Run(GetParam().id, "body", absl::InfiniteFuture(),
                              [] { return std::string("yes"); });
  if (GetParam().good) {
    EXPECT_THAT(answer, IsOk());
  } else {
    EXPECT_THAT(answer, HasReason("REQUEST_ID_INVALID"));
  }
}
INSTANTIATE_TEST_SUITE_P(
    All, IdTest,
    ::testing::Values(
        IdCase{"good", kId, true},
        IdCase{"upper case", "ABCDEF01-2222-4333-B444-555555555555", true},
        IdCase{"word", "retry", false},
        IdCase{"version one", "11111111-2222-1333-8444-555555555555", false},
        IdCase{"other variant", "11111111-2222-4333-c444-555555555555", false},
        IdCase{"no hyphens", "11111111222243338444555555555555", false},
        IdCase{"not hexadecimal", "g1111111-2222-4333-8444-555555555555",
               false}),
    CaseName<IdCase>);

}  // namespace
}  // namespace shardplane
