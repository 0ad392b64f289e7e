#include "telemetry/rpc_metrics.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/client_unary_call.h"
#include "grpcpp/support/sync_stream.h"
#include "gtest/gtest.h"
#include "telemetry/metrics.h"

namespace shardplane {
namespace {

using ::grpc::ByteBuffer;
using ::grpc::internal::RpcMethod;
using ::testing::Contains;

// A server with gRPC's own health and reflection services.
class RpcMetricsTest : public ::testing::Test {
 protected:
  RpcMetricsTest() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    std::vector<
        std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
        interceptors;
    interceptors.push_back(MakeRpcMetrics(&metrics_));
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel({});
  }

  grpc::Status Check(const std::string& serialized_request) {
    const grpc::Slice slice(serialized_request);
    const ByteBuffer request(&slice, 1);
    ByteBuffer response;
    grpc::ClientContext context;
    const RpcMethod method("/grpc.health.v1.Health/Check",
                           RpcMethod::NORMAL_RPC);
    return grpc::internal::BlockingUnaryCall(channel_.get(), method, &context,
                                             request, &response);
  }

  grpc::Status Reflect() {
    grpc::ClientContext context;
    const RpcMethod method(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        RpcMethod::BIDI_STREAMING);
    std::unique_ptr<grpc::ClientReaderWriter<ByteBuffer, ByteBuffer>> stream(
        grpc::internal::ClientReaderWriterFactory<
            ByteBuffer, ByteBuffer>::Create(channel_.get(), method, &context));
    stream->WritesDone();
    return stream->Finish();
  }

  // After the server has ended, so that every call has been counted.
  std::vector<std::string> Lines() {
    server_->Shutdown();
    return absl::StrSplit(metrics_.Text(), '\n');
  }

  Metrics metrics_{{.component = "worker"}};
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(RpcMetricsTest, CountsCallsByMethodAndStatus) {
  EXPECT_TRUE(Check("").ok());
  EXPECT_TRUE(Check("").ok());
  EXPECT_EQ(Check("\n\x07unknown").error_code(), grpc::StatusCode::NOT_FOUND);
  const std::vector<std::string> lines = Lines();
  EXPECT_THAT(lines, Contains("grpc_server_call_started_total{grpc_method="
                              "\"grpc.health.v1.Health/Check\"} 3"));
  EXPECT_THAT(
      lines,
      Contains("grpc_server_call_duration_seconds_count{grpc_method=\"grpc."
               "health.v1.Health/Check\",grpc_status=\"OK\"} 2"));
  EXPECT_THAT(
      lines,
      Contains("grpc_server_call_duration_seconds_count{grpc_method=\"grpc."
               "health.v1.Health/Check\",grpc_status=\"NOT_FOUND\"} 1"));
}

TEST_F(RpcMetricsTest, MethodsThatAreNotOursAreOther) {
  EXPECT_TRUE(Reflect().ok());
  EXPECT_THAT(
      Lines(),
      Contains("grpc_server_call_started_total{grpc_method=\"other\"} 1"));
}

}  // namespace
}  // namespace shardplane
