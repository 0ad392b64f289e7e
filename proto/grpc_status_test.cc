#include "proto/grpc_status.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {
namespace {

namespace rpc = ::google::rpc;
using absl::StatusCode;

// The detail of that type, if the status has one.
template <typename Detail>
std::optional<Detail> Find(const absl::Status& status) {
  const rpc::Status sent = ToRpcStatus(status);
  for (const auto& any : sent.details()) {
    if (Detail detail; any.UnpackTo(&detail)) {
      return detail;
    }
  }
  return std::nullopt;
}

TEST(GrpcStatusTest, OkIsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_TRUE(FromRpcStatus(ToRpcStatus(absl::OkStatus())).ok());
}

TEST(GrpcStatusTest, EveryCodeComesBackWithItsInfo) {
  const ErrorInfo info{"STEP_OUT_OF_TURN",
                       {{"expected", "7"}, {"fqn", "net1"}, {"é", "ü"}}};
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status =
        MakeError(static_cast<StatusCode>(code), "wrong; got: 3", info);
    const grpc::Status sent = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    EXPECT_EQ(sent.error_message(), "wrong; got: 3");
    const absl::Status back = FromGrpcStatus(sent);
    EXPECT_EQ(back, status);
    EXPECT_EQ(GetErrorInfo(back), info);
    EXPECT_EQ(FromRpcStatus(ToRpcStatus(status)), status);
    // Coordinator to client, after worker to coordinator.
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(back)), status);
  }
}

TEST(GrpcStatusTest, ErrorInfoIsAlwaysThere) {
  const auto plain = Find<rpc::ErrorInfo>(absl::NotFoundError("gone"));
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->reason(), "NOT_FOUND");
  EXPECT_EQ(plain->domain(), "shardplane");
  const auto named = Find<rpc::ErrorInfo>(
      MakeError(StatusCode::kAborted, "m", {"STALE", {{"a", "b"}}}));
  ASSERT_TRUE(named.has_value());
  EXPECT_EQ(named->reason(), "STALE");
  EXPECT_EQ(named->metadata().at("a"), "b");
}

TEST(GrpcStatusTest, FieldMakesABadRequest) {
  const auto detail = Find<rpc::BadRequest>(MakeError(
      StatusCode::kInvalidArgument, "bad", {"R", {{"field", "mesh.dims"}}}));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->field_violations(0).field(), "mesh.dims");
  EXPECT_EQ(detail->field_violations(0).description(), "bad");
  EXPECT_FALSE(Find<rpc::BadRequest>(absl::InternalError("x")).has_value());
}

TEST(GrpcStatusTest, FailedPreconditionHasAViolation) {
  const auto detail = Find<rpc::PreconditionFailure>(
      MakeError(StatusCode::kFailedPrecondition, "too few",
                {"TOO_FEW_WORKERS", {{"resource", "deployments/d"}}}));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->violations(0).type(), "TOO_FEW_WORKERS");
  EXPECT_EQ(detail->violations(0).subject(), "deployments/d");
  EXPECT_EQ(detail->violations(0).description(), "too few");
  EXPECT_EQ(Find<rpc::PreconditionFailure>(
                MakeError(StatusCode::kFailedPrecondition, "m",
                          {"R", {{"resource", "r"}, {"subject", "s"}}}))
                ->violations(0)
                .subject(),
            "s");
  EXPECT_TRUE(
      Find<rpc::PreconditionFailure>(absl::FailedPreconditionError("plain"))
          .has_value());
}

TEST(GrpcStatusTest, ResourceMakesAResourceInfo) {
  for (const StatusCode code :
       {StatusCode::kNotFound, StatusCode::kAlreadyExists}) {
    const auto detail = Find<rpc::ResourceInfo>(
        MakeError(code, "m", {"R", {{"resource", "deployments/d"}}}));
    ASSERT_TRUE(detail.has_value());
    EXPECT_EQ(detail->resource_type(), "deployments");
    EXPECT_EQ(detail->resource_name(), "deployments/d");
  }
  EXPECT_FALSE(
      Find<rpc::ResourceInfo>(MakeError(StatusCode::kAborted, "m",
                                        {"R", {{"resource", "deployments/d"}}}))
          .has_value());
}

TEST(GrpcStatusTest, RetryMsMakesARetryInfo) {
  const auto detail = Find<rpc::RetryInfo>(
      MakeError(StatusCode::kUnavailable, "m", {"R", {{"retry_ms", "1250"}}}));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->retry_delay().seconds(), 1);
  EXPECT_EQ(detail->retry_delay().nanos(), 250'000'000);
  for (const std::string bad : {"", "soon", "-1"}) {
    EXPECT_FALSE(Find<rpc::RetryInfo>(MakeError(StatusCode::kUnavailable, "m",
                                                {"R", {{"retry_ms", bad}}}))
                     .has_value());
  }
}

// What a status costs in trailers: grpc-message is percent-encoded, binary
// details are base64.
size_t TrailerBytes(const grpc::Status& status) {
  size_t bytes = absl::Base64Escape(status.error_details()).size();
  for (const char c : status.error_message()) {
    bytes += c < ' ' || c > '~' || c == '%' ? 3 : 1;
  }
  return bytes;
}

TEST(GrpcStatusTest, TrailersStaySmallWhateverComes) {
  for (const std::string unit : {"x", "é", "\xff", "%", "日本", "\n"}) {
    std::string text;
    while (text.size() < 20'000) {
      text += unit;
    }
    ErrorInfo info{text, {}};
    for (int i = 0; i < 500; ++i) {
      info.metadata[absl::StrCat("a", i, text.substr(0, 30))] = text;
    }
    for (const char* key : {"field", "expected", "fqn", "op", "pattern",
                            "resource", "subject", "mesh_dim", "rank"}) {
      info.metadata[key] = text;
    }
    info.metadata["retry_ms"] = "5";
    for (int code = 1; code <= 16; ++code) {
      const grpc::Status sent =
          ToGrpcStatus(MakeError(static_cast<StatusCode>(code), text, info));
      EXPECT_LT(TrailerBytes(sent), 6 * 1024u);
      const absl::Status back = FromGrpcStatus(sent);
      const auto kept = GetErrorInfo(back);
      ASSERT_TRUE(kept.has_value());
      EXPECT_EQ(kept->metadata.at("retry_ms"), "5");
      EXPECT_EQ(kept->metadata.count("field"), 1u);
      // Once cut, it is cut no further on its way.
      EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(back)), back);
    }
  }
}

TEST(GrpcStatusTest, CutTextEndsInAnEllipsis) {
  const grpc::Status sent =
      ToGrpcStatus(absl::InternalError(std::string(5000, 'x')));
  EXPECT_THAT(sent.error_message(), testing::EndsWith("xxx..."));
  EXPECT_GT(sent.error_message().size(), 500u);
}

TEST(GrpcStatusTest, WhatIsNotUtf8BecomesQuestionMarks) {
  const grpc::Status sent = ToGrpcStatus(MakeError(StatusCode::kInternal,
                                                   "a\xff"
                                                   "b\xc3",
                                                   {"R\xed\xa0\x80", {}}));
  EXPECT_EQ(sent.error_message(), "a?b?");
  EXPECT_EQ(GetErrorInfo(FromGrpcStatus(sent))->reason, "R???");
}

TEST(GrpcStatusTest, StatusesOfOthersHaveNoInfo) {
  const absl::Status plain = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"));
  EXPECT_EQ(plain, absl::UnavailableError("connection refused"));
  EXPECT_FALSE(GetErrorInfo(plain).has_value());
  rpc::Status other;
  rpc::ErrorInfo detail;
  detail.set_domain("googleapis.com");
  detail.set_reason("R");
  other.add_details()->PackFrom(detail);
  EXPECT_FALSE(
      GetErrorInfo(FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "m",
                                               other.SerializeAsString())))
          .has_value());
  EXPECT_EQ(
      FromGrpcStatus(grpc::Status(grpc::StatusCode::DO_NOT_USE, "m")).code(),
      StatusCode::kUnknown);
}

TEST(GrpcStatusTest, GarbledDetailsAreIgnoredOrRead) {
  std::mt19937_64 random(TestSeed());
  const std::string details =
      ToGrpcStatus(MakeError(StatusCode::kInvalidArgument, "m",
                             {"R", {{"field", "a.b"}, {"retry_ms", "1"}}}))
          .error_details();
  for (int i = 0; i < 2000; ++i) {
    const absl::Status status = FromGrpcStatus(grpc::Status(
        grpc::StatusCode::INVALID_ARGUMENT, "m", Garble(details, random)));
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_FALSE(ToGrpcStatus(status).ok());
  }
}

// Answers every GetWorker with the same error.
class Refuser : public v1::ShardingCoordinator::Service {
 public:
  explicit Refuser(const absl::Status& status) : status_(status) {}
  grpc::Status GetWorker(grpc::ServerContext*, const v1::GetWorkerRequest*,
                         v1::WorkerNode*) override {
    return ToGrpcStatus(status_);
  }

 private:
  const absl::Status status_;
};

TEST(GrpcStatusTest, TheLargestStatusPassesARealConnection) {
  ErrorInfo info{"REASON", {}};
  for (const char* key : {"field", "resource", "expected", "fqn", "op"}) {
    info.metadata[key] = std::string(10'000, 'x');
  }
  Refuser refuser(MakeError(StatusCode::kFailedPrecondition,
                            std::string(10'000, '%'), info));
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(&refuser);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  const auto stub = v1::ShardingCoordinator::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::WorkerNode worker;
  const absl::Status status =
      FromGrpcStatus(stub->GetWorker(&context, {}, &worker));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  const auto back = GetErrorInfo(status);
  ASSERT_TRUE(back.has_value()) << status;
  EXPECT_EQ(back->reason, "REASON");
  EXPECT_EQ(back->metadata.count("field"), 1u);
}

}  // namespace
}  // namespace shardplane
