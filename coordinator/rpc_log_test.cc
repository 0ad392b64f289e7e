#include "telemetry/rpc_log.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTrace[] =
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// Answers as a test wants it to.
class Service final : public v1::ShardingCoordinator::Service {
 public:
  grpc::Status status;

  grpc::Status Step(grpc::ServerContext*, const v1::StepRequest*,
                    v1::StepResult*) override {
    return status;
  }
  grpc::Status GetDeployment(grpc::ServerContext*,
                             const v1::GetDeploymentRequest*,
                             v1::Deployment*) override {
    return status;
  }
};

class RpcLogTest : public ::testing::Test {
 protected:
  RpcLogTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    std::vector<
        std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
        interceptors;
    interceptors.push_back(MakeRpcLog(&log_));
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
    server_ = builder.BuildAndStart();
    stub_ = v1::ShardingCoordinator::NewStub(server_->InProcessChannel({}));
  }

  void Step(grpc::Status status) {
    service_.status = std::move(status);
    v1::StepRequest request;
    request.set_deployment("deployments/d");
    request.set_step(7);
    request.set_request_id("r1");
    v1::StepResult response;
    grpc::ClientContext context;
    context.AddMetadata("traceparent", kTrace);
    (void)stub_->Step(&context, request, &response);
  }
  // After the server has ended, so that every call has its line.
  std::vector<std::string> Lines() {
    server_->Shutdown();
    absl::MutexLock lock(&mu_);
    return lines_;
  }

  absl::Mutex mu_;
  std::vector<std::string> lines_;
  Log log_{{.component = "coordinator",
            .format = LogFormat::kJson,
            .level = LogLevel::kDebug,
            .write = [this](const std::string& line) {
              absl::MutexLock lock(&mu_);
              lines_.push_back(line);
            }}};
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::ShardingCoordinator::Stub> stub_;
};

TEST_F(RpcLogTest, SaysWhatACallWasAbout) {
  Step({grpc::StatusCode::ABORTED, "expected: 6"});
  EXPECT_THAT(
      Lines(),
      ElementsAre(AllOf(
          HasSubstr("\"level\":\"INFO\""),
          HasSubstr("\"message\":\"expected: 6\""),
          HasSubstr("\"method\":\"shardplane.v1.ShardingCoordinator/Step\""),
          HasSubstr("\"code\":\"ABORTED\""), HasSubstr("\"seconds\":\"0."),
          HasSubstr("\"request_id\":\"r1\""),
          HasSubstr("\"deployment\":\"deployments/d\""),
          HasSubstr("\"step\":\"7\""),
          HasSubstr("\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\""))));
}

TEST_F(RpcLogTest, LevelsAreByWhoIsToBlame) {
  Step(grpc::Status::OK);
  Step({grpc::StatusCode::INVALID_ARGUMENT, "the caller"});
  Step({grpc::StatusCode::UNAVAILABLE, "we"});
  Step({grpc::StatusCode::INTERNAL, "we"});
  EXPECT_THAT(Lines(), ElementsAre(HasSubstr("DEBUG"), HasSubstr("INFO"),
                                   HasSubstr("WARNING"), HasSubstr("WARNING")));
}

TEST_F(RpcLogTest, ANameMayBeADeployments) {
  v1::GetDeploymentRequest request;
  request.set_name("deployments/e");
  v1::Deployment response;
  grpc::ClientContext context;
  (void)stub_->GetDeployment(&context, request, &response);
  EXPECT_THAT(Lines(),
              ElementsAre(AllOf(HasSubstr("\"deployment\":\"deployments/e\""),
                                Not(HasSubstr("\"step\"")),
                                Not(HasSubstr("\"trace_id\"")))));
}

}  // namespace
}  // namespace shardplane
