#include "client/backoff.h"

#include <optional>

#include "client/error_info.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

constexpr double kAlmostOne = 0.999;
const absl::Time kStart = absl::FromUnixSeconds(1000);

absl::Status Unavailable() { return absl::UnavailableError("gone"); }

// As it comes from a server that asks for a wait.
absl::Status AskingFor(const char* retry_ms) {
  google::rpc::ErrorInfo info;
  info.set_domain(kErrorDomain);
  info.set_reason("DRAINING");
  (*info.mutable_metadata())["retry_ms"] = retry_ms;
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  return FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "drains",
                                     details.SerializeAsString()));
}

TEST(BackoffTest, DoublesUpToTheLongest) {
  Backoff backoff(
      {.first = absl::Milliseconds(50), .longest = absl::Milliseconds(300)},
      kStart);
  for (const int ms : {25, 50, 100, 150, 150}) {
    EXPECT_EQ(backoff.Next(Unavailable(), kStart, 0.5), absl::Milliseconds(ms));
  }
}

TEST(BackoffTest, JitterIsFull) {
  EXPECT_EQ(Backoff({}, kStart).Next(Unavailable(), kStart, 0),
            absl::ZeroDuration());
  EXPECT_LT(*Backoff({}, kStart).Next(Unavailable(), kStart, kAlmostOne),
            BackoffOptions().first);
}

TEST(BackoffTest, EndsWhenTheNextTryWouldComeTooLate) {
  const BackoffOptions options{.first = absl::Milliseconds(100),
                               .retry_for = absl::Seconds(1)};
  const absl::Time late = kStart + absl::Milliseconds(950);
  EXPECT_EQ(Backoff(options, kStart).Next(Unavailable(), late, 0.5),
            absl::Milliseconds(50));
  EXPECT_EQ(Backoff(options, kStart).Next(Unavailable(), late, 0.6),
            std::nullopt);
}

TEST(BackoffTest, WaitsAsLongAsTheServerAsksFor) {
  EXPECT_EQ(Backoff({}, kStart).Next(AskingFor("300"), kStart, 0.5),
            absl::Milliseconds(300));
  EXPECT_EQ(Backoff({}, kStart).Next(AskingFor("1"), kStart, 0.5),
            absl::Milliseconds(25));
}

TEST(BackoffTest, AWaitThatIsNoNumberCountsAsNone) {
  for (const char* text : {"", "soon", "-5"}) {
    EXPECT_EQ(Backoff({}, kStart).Next(AskingFor(text), kStart, 0.5),
              absl::Milliseconds(25))
        << text;
  }
}

TEST(BackoffTest, OnlyUnavailableIsTriedAgain) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "no");
    EXPECT_EQ(Backoff({}, kStart).Next(status, kStart, 0.5).has_value(),
              absl::IsUnavailable(status))
        << status;
  }
}

}  // namespace
}  // namespace shardplane
