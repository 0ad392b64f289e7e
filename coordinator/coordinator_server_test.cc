// The services over a real connection, with fake workers behind them.
#include "coordinator/coordinator_server.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/fake_worker.h"
#include "coordinator/messages.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/convert/module.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/plan.h"
#include "proto/convert/program.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class CoordinatorServerTest : public ::testing::Test {
 protected:
  CoordinatorServerTest() {
    CoordinatorServer::Options options;
    options.coordinator = cluster_.options();
    options.metrics = &metrics_;
    options.stream_idle_limit = absl::Seconds(5);
    options.tick = absl::Milliseconds(5);
    server_ = *CoordinatorServer::Start(std::move(options));
    channel_ = grpc::CreateChannel(server_->address(),
                                   grpc::InsecureChannelCredentials());
    stub_ = pb::ShardingCoordinator::NewStub(channel_);
    registry_ = pb::WorkerRegistry::NewStub(channel_);
    rendezvous_ = pb::Rendezvous::NewStub(channel_);
  }

  // One unary call, as a Status that has its ErrorInfo.
  template <typename Method, typename Request, typename Response, typename Stub>
  static absl::Status Call(const std::unique_ptr<Stub>& stub, Method method,
                           const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    return FromGrpcStatus(((*stub).*method)(&context, request, response));
  }
  absl::StatusOr<pb::Deployment> Create(
      const pb::CreateDeploymentRequest& request) {
    pb::Deployment response;
    const absl::Status status =
        Call(stub_, &pb::ShardingCoordinator::Stub::CreateDeployment, request,
             &response);
    return status.ok() ? absl::StatusOr<pb::Deployment>(response) : status;
  }
  absl::StatusOr<pb::StepResult> Step(const pb::StepRequest& request) {
    pb::StepResult response;
    const absl::Status status =
        Call(stub_, &pb::ShardingCoordinator::Stub::Step, request, &response);
    return status.ok() ? absl::StatusOr<pb::StepResult>(response) : status;
  }

  absl::Status AddWorker(const std::string& id) {
    pb::RegisterWorkerRequest request;
    request.set_worker_id(id);
    request.set_incarnation(7);
    request.set_address(id);
    pb::RegisterWorkerResponse response;
    return Call(registry_, &pb::WorkerRegistry::Stub::RegisterWorker, request,
                &response);
  }
  // A new UUID4 each time.
  std::string NewId() {
    return absl::StrFormat("%08x-aaaa-4000-8000-000000000000", ++ids_);
  }
  pb::CreateDeploymentRequest CreateRequest(int ranks) {
    const DeploymentSpec spec = MlpSpec(ranks);
    pb::CreateDeploymentRequest request;
    pb::Deployment& deployment = *request.mutable_deployment();
    *deployment.mutable_module() = ToProto(spec.module);
    *deployment.mutable_mesh() = ToProto(spec.mesh);
    *deployment.mutable_plan() = ToProto(*spec.plan);
    deployment.set_src_data_rank(0);
    *request.mutable_signature() =
        ToProto(MlpSignature(WithLoss::kSum).signature);
    request.set_request_id(NewId());
    return request;
  }
  struct UploadSpec {
    std::string parameter;
    std::string upload;
    TensorType type = MlpInput();
    std::string request_id;
    uint32_t crc32_change = 0;  // to spoil the checksum
  };
  absl::Status Upload(const UploadSpec& spec) {
    grpc::ClientContext context;
    pb::UploadTensorResponse response;
    const auto writer = stub_->UploadTensor(&context, &response);
    pb::UploadTensorRequest message;
    auto* header = message.mutable_header();
    header->set_deployment(name_);
    *header->mutable_type() = ToProto(spec.type);
    header->set_request_id(spec.request_id);
    if (spec.parameter.empty()) {
      header->set_upload(spec.upload);
    } else {
      header->set_parameter(spec.parameter);
    }
    writer->Write(message);
    const std::string bytes(ByteSize(spec.type), '\0');
    TensorChunker chunker(bytes, 1000);
    message.Clear();
    while (chunker.Next(message.mutable_chunk())) {
      if (message.chunk().last()) {
        message.mutable_chunk()->set_crc32(message.chunk().crc32() ^
                                           spec.crc32_change);
      }
      if (!writer->Write(message)) {
        break;
      }
    }
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  }
  pb::MaterializeDeploymentRequest MaterializeRequest() {
    pb::MaterializeDeploymentRequest request;
    request.set_name(name_);
    request.set_request_id(NewId());
    return request;
  }
  // A deployment over workers w0 … w{ranks-1}, with data, not materialized.
  void CreateWithData(int ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      ASSERT_THAT(AddWorker(absl::StrCat("w", rank)), IsOk());
    }
    const auto deployment = Create(CreateRequest(ranks));
    ASSERT_THAT(deployment, IsOk());
    name_ = deployment->name();
    program_ = deployment->programs(0);
    const GraphModule module = SequentialMlp();
    for (const Parameter& parameter : module.parameters()) {
      ASSERT_THAT(Upload({.parameter = parameter.fqn, .type = parameter.type}),
                  IsOk());
    }
  }
  void Deploy(int ranks) {
    ASSERT_NO_FATAL_FAILURE(CreateWithData(ranks));
    pb::Deployment response;
    ASSERT_THAT(
        Call(stub_, &pb::ShardingCoordinator::Stub::MaterializeDeployment,
             MaterializeRequest(), &response),
        IsOk());
    ASSERT_EQ(response.state(), pb::Deployment::STATE_READY);
  }
  pb::StepRequest StepRequestOf(uint64_t number) {
    pb::StepRequest request;
    request.set_deployment(name_);
    request.set_step(number);
    request.set_request_id(NewId());
    request.mutable_train()->set_program(program_);
    *request.mutable_train()->add_inputs() =
        ToProto(HostTensor{MlpInput(), std::string(240, '\0')});
    *request.mutable_train()->mutable_optimizer() =
        ToProto(OptimizerOptions{SgdOptions{.lr = 0.25}});
    return request;
  }
  FakeWorker& worker(const std::string& id) { return cluster_.worker(id); }

  Metrics metrics_{{.component = "coordinator"}};
  FakeCluster cluster_;
  std::unique_ptr<CoordinatorServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::ShardingCoordinator::Stub> stub_;
  std::unique_ptr<pb::WorkerRegistry::Stub> registry_;
  std::unique_ptr<pb::Rendezvous::Stub> rendezvous_;
  std::string name_;
  std::string program_;
  int ids_ = 0;
};

// ---------------------------------------- each write twice, and while it runs

TEST_F(CoordinatorServerTest, CreateTwiceAndWhileItRuns) {
  ASSERT_THAT(AddWorker("w0"), IsOk());
  const pb::CreateDeploymentRequest request = CreateRequest(1);
  worker("w0").Hold(Method::kJoinGang);
  absl::StatusOr<pb::Deployment> first;
  absl::StatusOr<pb::Deployment> second;
  std::thread a([&] { first = Create(request); });
  worker("w0").WaitUntilHeld(Method::kJoinGang);
  std::thread b([&] { second = Create(request); });
  worker("w0").Release(Method::kJoinGang);
  a.join();
  b.join();
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->SerializeAsString(), second->SerializeAsString());
  EXPECT_EQ(Create(request)->name(), first->name());
  EXPECT_EQ(worker("w0").calls(Method::kJoinGang), 1);
  pb::CreateDeploymentRequest other = request;
  other.mutable_deployment()->set_seed(7);
  EXPECT_THAT(Create(other), HasReason("REQUEST_ID_REUSED"));
}

TEST_F(CoordinatorServerTest, MaterializeTwiceAndWhileItRuns) {
  ASSERT_NO_FATAL_FAILURE(CreateWithData(1));
  const pb::MaterializeDeploymentRequest request = MaterializeRequest();
  const auto materialize = [&](pb::Deployment* response) {
    return Call(stub_, &pb::ShardingCoordinator::Stub::MaterializeDeployment,
                request, response);
  };
  worker("w0").Hold(Method::kMaterialize);
  pb::Deployment first;
  pb::Deployment second;
  std::thread a([&] { EXPECT_THAT(materialize(&first), IsOk()); });
  worker("w0").WaitUntilHeld(Method::kMaterialize);
  std::thread b([&] { EXPECT_THAT(materialize(&second), IsOk()); });
  worker("w0").Release(Method::kMaterialize);
  a.join();
  b.join();
  EXPECT_THAT(materialize(&second), IsOk());
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(worker("w0").calls(Method::kMaterialize), 1);
}

TEST_F(CoordinatorServerTest, CreateProgramTwiceAndWhileItRuns) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::CreateProgramRequest request;
  request.set_parent(name_);
  request.set_request_id(NewId());
  *request.mutable_signature() = ToProto(MlpSignature(WithLoss::kNo).signature);
  const auto create = [&](pb::Program* response) {
    return Call(stub_, &pb::ShardingCoordinator::Stub::CreateProgram, request,
                response);
  };
  worker("w0").Hold(Method::kLoadProgram);
  pb::Program first;
  pb::Program second;
  std::thread a([&] { EXPECT_THAT(create(&first), IsOk()); });
  worker("w0").WaitUntilHeld(Method::kLoadProgram);
  std::thread b([&] { EXPECT_THAT(create(&second), IsOk()); });
  worker("w0").Release(Method::kLoadProgram);
  a.join();
  b.join();
  EXPECT_EQ(first.name(), second.name());
  EXPECT_FALSE(first.has_loss());
  EXPECT_EQ(worker("w0").calls(Method::kLoadProgram), 2);
  pb::GetProgramRequest get;
  get.set_name(first.name());
  EXPECT_THAT(
      Call(stub_, &pb::ShardingCoordinator::Stub::GetProgram, get, &second),
      IsOk());
}

TEST_F(CoordinatorServerTest, ExplainsADeployment) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  pb::ExplainDeploymentRequest request;
  request.set_name(name_);
  request.set_fqn("net2");
  pb::Explanation response;
  const auto explain = [&] {
    return Call(stub_, &pb::ShardingCoordinator::Stub::ExplainDeployment,
                request, &response);
  };
  ASSERT_THAT(explain(), IsOk());
  EXPECT_EQ(response.matches(0).pattern(), "net2");
  ASSERT_EQ(response.collectives_size(), 1);
  EXPECT_EQ(response.collectives(0).program(), program_);
  EXPECT_EQ(response.collectives(0).why(), "sum of a rowwise linear");
  request.set_fqn("net3");
  EXPECT_THAT(explain(), AllOf(StatusIs(absl::StatusCode::kNotFound,
                                        HasSubstr("did you mean \"net1\"?")),
                               HasReason("FQN_NOT_FOUND")));
  request.set_name("deployments/none");
  EXPECT_THAT(explain(), StatusIs(absl::StatusCode::kNotFound,
                                  HasSubstr("deployments/none")));
}

TEST_F(CoordinatorServerTest, ExplainsWhatIsNotMade) {
  pb::ExplainDeploymentRequest request;
  *request.mutable_dry_run() = CreateRequest(64);
  request.set_fqn("net1.weight");
  pb::Explanation response;
  const auto explain = [&] {
    return Call(stub_, &pb::ShardingCoordinator::Stub::ExplainDeployment,
                request, &response);
  };
  ASSERT_THAT(explain(), IsOk());
  EXPECT_EQ(response.kind(), pb::Explanation::KIND_PARAMETER);
  EXPECT_EQ(response.bytes_size(), 64);
  request.set_name("deployments/d");
  EXPECT_THAT(explain(), StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("got: both")));
  request.clear_dry_run();
  request.clear_name();
  EXPECT_THAT(explain(), StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("got: neither")));
}

TEST_F(CoordinatorServerTest, StepTwiceAndWhileItRuns) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  const pb::StepRequest request = StepRequestOf(1);
  pb::StepRequest with_another_id = request;
  with_another_id.set_request_id(NewId());
  worker("w0").Hold(Method::kStep);
  std::vector<absl::StatusOr<pb::StepResult>> answers(3);
  std::vector<std::thread> threads;
  threads.emplace_back([&] { answers[0] = Step(request); });
  worker("w0").WaitUntilHeld(Method::kStep);
  threads.emplace_back([&] { answers[1] = Step(request); });
  threads.emplace_back([&] { answers[2] = Step(with_another_id); });
  worker("w0").Release(Method::kStep);
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const auto& answer : answers) {
    ASSERT_THAT(answer, IsOk());
    EXPECT_EQ(answer->SerializeAsString(), answers[0]->SerializeAsString());
  }
  EXPECT_EQ(answers[0]->name(), absl::StrCat(name_, "/steps/1"));
  EXPECT_EQ(worker("w0").calls(Method::kStep), 1);
}

TEST_F(CoordinatorServerTest, ClippedUpdateTwiceAndWithAnotherBody) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::StepRequest request = StepRequestOf(1);
  pb::Optimizer optimizer = request.train().optimizer();
  *request.mutable_update()->mutable_optimizer() = std::move(optimizer);
  request.mutable_update()->set_clip_norm(0.5);
  const auto first = Step(request);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->gradient_norm(), 2.5);
  request.set_request_id(NewId());
  EXPECT_EQ(Step(request)->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(worker("w0").calls(Method::kRun), 1);
  request.set_request_id(NewId());
  request.mutable_update()->set_clip_norm(0.25);
  EXPECT_THAT(Step(request), HasReason("STEP_OUT_OF_TURN"));
  EXPECT_EQ(worker("w0").commits()[0].clip_norm, 0.5);
}

TEST_F(CoordinatorServerTest, DeleteTwiceAndWhileItRuns) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::DeleteDeploymentRequest request;
  request.set_name(name_);
  request.set_request_id(NewId());
  const auto remove = [&] {
    google::protobuf::Empty response;
    return Call(stub_, &pb::ShardingCoordinator::Stub::DeleteDeployment,
                request, &response);
  };
  worker("w0").Hold(Method::kLeaveGang);
  std::thread a([&] { EXPECT_THAT(remove(), IsOk()); });
  worker("w0").WaitUntilHeld(Method::kLeaveGang);
  std::thread b([&] { EXPECT_THAT(remove(), IsOk()); });
  worker("w0").Release(Method::kLeaveGang);
  a.join();
  b.join();
  EXPECT_THAT(remove(), IsOk());
  EXPECT_EQ(worker("w0").calls(Method::kLeaveGang), 1);
  request.set_request_id(NewId());
  EXPECT_THAT(remove(), HasReason("DEPLOYMENT_NOT_FOUND"));
}

TEST_F(CoordinatorServerTest, UploadTwice) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  const size_t staged = worker("w0").staged().size();
  const std::string id = NewId();
  EXPECT_THAT(Upload({.upload = "x", .request_id = id}), IsOk());
  EXPECT_THAT(Upload({.upload = "x", .request_id = id}), IsOk());
  EXPECT_EQ(worker("w0").staged().size(), staged + 1);
  EXPECT_THAT(Upload({.upload = "y", .request_id = id}),
              HasReason("REQUEST_ID_REUSED"));
}

// ---------------------------------------------------------------- clients go

TEST_F(CoordinatorServerTest, ClientThatGoesInAnUploadLeavesNothing) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  const size_t staged = worker("w0").staged().size();
  {
    grpc::ClientContext context;
    pb::UploadTensorResponse response;
    const auto writer = stub_->UploadTensor(&context, &response);
    pb::UploadTensorRequest message;
    message.mutable_header()->set_deployment(name_);
    message.mutable_header()->set_upload("x");
    *message.mutable_header()->mutable_type() = ToProto(MlpInput());
    ASSERT_TRUE(writer->Write(message));
    message.mutable_chunk()->set_data(std::string(100, '\0'));
    ASSERT_TRUE(writer->Write(message));
    context.TryCancel();
    writer->Finish();
  }
  EXPECT_THAT(Step(StepRequestOf(1)), IsOk());
  EXPECT_EQ(worker("w0").staged().size(), staged);
}

TEST_F(CoordinatorServerTest, ClientThatFallsSilentIsCutOff) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  grpc::ClientContext context;
  pb::UploadTensorResponse response;
  const auto writer = stub_->UploadTensor(&context, &response);
  pb::UploadTensorRequest message;
  message.mutable_header()->set_deployment(name_);
  message.mutable_header()->set_upload("x");
  *message.mutable_header()->mutable_type() = ToProto(MlpInput());
  ASSERT_TRUE(writer->Write(message));
  // Time passes until it is noticed: a little at once, so that the worker's
  // lease holds and the stream's limit does not.
  std::atomic<bool> noticed = false;
  std::thread time([&] {
    while (!noticed) {
      cluster_.Advance(absl::Milliseconds(100));
      EXPECT_THAT(AddWorker("w0"), IsOk());
    }
  });
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  noticed = true;
  time.join();
  EXPECT_THAT(Step(StepRequestOf(1)), IsOk());
}

TEST_F(CoordinatorServerTest, StepOfAClientThatGoesIsAppliedOnce) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  const pb::StepRequest request = StepRequestOf(1);
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  std::thread client([&] {
    pb::StepResult response;
    EXPECT_EQ(stub_->Step(&context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  worker("w0").WaitUntilHeld(Method::kStep);
  context.TryCancel();
  client.join();
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Step(request), IsOk());
  EXPECT_EQ(worker("w0").calls(Method::kStep), 1);
  EXPECT_THAT(worker("w0").commits(), SizeIs(1));
}

// ---------------------------------------------------------------- limits

TEST_F(CoordinatorServerTest, MessageOverTheLimitHarmsNothing) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::StepRequest request = StepRequestOf(1);
  request.mutable_train()->mutable_inputs(0)->set_inline_(
      std::string(33 << 20, '\0'));
  EXPECT_THAT(Step(request), StatusIs(absl::StatusCode::kResourceExhausted,
                                      HasSubstr("larger than max")));
  EXPECT_THAT(Step(StepRequestOf(1)), IsOk());
}

TEST_F(CoordinatorServerTest, LargeInlineTensorIsToBeUploaded) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::StepRequest request = StepRequestOf(1);
  pb::Tensor& input = *request.mutable_train()->mutable_inputs(0);
  input.mutable_type()->clear_shape();
  input.mutable_type()->add_shape(1 << 19);
  input.set_inline_(std::string(4 << 19, '\0'));
  EXPECT_THAT(Step(request), StatusIs(absl::StatusCode::kResourceExhausted,
                                      HasSubstr("pload")));
}

TEST_F(CoordinatorServerTest, WaitsDoNotStarveLeases) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  constexpr int kWaiting = 64;
  std::vector<std::thread> waiters;
  pb::StoreGetRequest get;
  get.mutable_member()->set_deployment(name_);
  get.mutable_member()->set_epoch(1);
  get.mutable_member()->set_incarnation(7);
  get.add_keys("never");
  get.set_timeout_ms(20'000);
  for (int i = 0; i < kWaiting; ++i) {
    waiters.emplace_back([&] {
      pb::StoreGetResponse response;
      EXPECT_THAT(
          Call(rendezvous_, &pb::Rendezvous::Stub::StoreGet, get, &response),
          StatusIs(absl::StatusCode::kAborted, ::testing::_));
    });
  }
  pb::RenewLeaseRequest renew;
  renew.set_worker_id("w0");
  renew.set_incarnation(7);
  pb::RenewLeaseResponse lease;
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(
        Call(registry_, &pb::WorkerRegistry::Stub::RenewLease, renew, &lease),
        IsOk());
  }
  EXPECT_EQ(lease.lease_ms(), 10'000);
  pb::DeleteDeploymentRequest remove;
  remove.set_name(name_);
  google::protobuf::Empty nothing;
  EXPECT_THAT(Call(stub_, &pb::ShardingCoordinator::Stub::DeleteDeployment,
                   remove, &nothing),
              IsOk());
  for (std::thread& waiter : waiters) {
    waiter.join();
  }
}

TEST_F(CoordinatorServerTest, DrainWaitsForCallsAndThenEndsThem) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  absl::StatusOr<pb::StepResult> answer;
  std::thread client([&] { answer = Step(StepRequestOf(1)); });
  worker("w0").WaitUntilHeld(Method::kStep);
  EXPECT_THAT(server_->Serving(), IsOk());
  server_->Drain(absl::Milliseconds(50));
  client.join();
  EXPECT_THAT(answer, Not(IsOk()));
  EXPECT_THAT(server_->Serving(), Not(IsOk()));
}

// ---------------------------------------------------------------- tensors

TEST_F(CoordinatorServerTest, BadChecksumIsDataLoss) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  const size_t staged = worker("w0").staged().size();
  EXPECT_THAT(Upload({.upload = "x", .crc32_change = 1}),
              StatusIs(absl::StatusCode::kDataLoss, ::testing::_));
  EXPECT_EQ(worker("w0").staged().size(), staged);
}

TEST_F(CoordinatorServerTest, DownloadsInChunks) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  pb::DownloadTensorRequest request;
  request.set_deployment(name_);
  request.mutable_tensor()->set_parameter("net1.weight");
  grpc::ClientContext context;
  const auto reader = stub_->DownloadTensor(&context, request);
  pb::DownloadTensorResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.header().spec().placements(0).shard().dim(), 0);
  const auto tensor = ReceiveChunks<pb::DownloadTensorResponse>(
      {DType::kFloat32, {16, 10}},
      [&](pb::DownloadTensorResponse* next) { return reader->Read(next); });
  EXPECT_THAT(tensor, IsOk());
  EXPECT_TRUE(reader->Finish().ok());
}

// ---------------------------------------------------------------- errors

TEST_F(CoordinatorServerTest, ErrorsCarryTheirDetails) {
  const auto unknown = Step(StepRequestOf(1));
  EXPECT_THAT(unknown, AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("deployment")),
                             HasReason("RESOURCE_NAME_INVALID")));
  name_ = "deployments/nowhere";
  program_ = "deployments/nowhere/programs/p1";
  EXPECT_THAT(Step(StepRequestOf(1)),
              AllOf(StatusIs(absl::StatusCode::kNotFound,
                             HasSubstr("deployments/nowhere")),
                    HasMetadata("resource", "deployments/nowhere")));
  EXPECT_THAT(Create(CreateRequest(3)), HasReason("TOO_FEW_WORKERS"));
  pb::CreateDeploymentRequest create = CreateRequest(1);
  create.set_request_id("again");
  EXPECT_THAT(Create(create), HasReason("REQUEST_ID_INVALID"));
  create = CreateRequest(1);
  create.set_deployment_id("No Good");
  EXPECT_THAT(Create(create), HasMetadata("field", "deployment_id"));
  create = CreateRequest(1);
  create.mutable_deployment()->clear_module();
  EXPECT_THAT(Create(create), HasMetadata("field", "deployment.module"));
  create = CreateRequest(1);
  create.set_validate_only(true);
  EXPECT_THAT(Create(create), IsOk());
}

TEST_F(CoordinatorServerTest, StepWithoutAnActionIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::StepRequest request = StepRequestOf(1);
  request.clear_train();
  EXPECT_THAT(Step(request), HasMetadata("field", "action"));
  request.mutable_update();
  EXPECT_THAT(Step(request), HasReason("REQUEST_ID_REUSED"));
  request.set_request_id(NewId());
  EXPECT_THAT(Step(request), HasMetadata("field", "update.optimizer"));
}

// ---------------------------------------------------------------- lists

TEST_F(CoordinatorServerTest, ListsComeInPages) {
  for (const char* id : {"w2", "w0", "w1"}) {
    ASSERT_THAT(AddWorker(id), IsOk());
  }
  std::vector<std::string> names;
  pb::ListWorkersRequest request;
  request.set_page_size(2);
  pb::ListWorkersResponse response;
  do {
    ASSERT_THAT(Call(stub_, &pb::ShardingCoordinator::Stub::ListWorkers,
                     request, &response),
                IsOk());
    for (const pb::WorkerNode& node : response.workers()) {
      names.push_back(node.name());
    }
    request.set_page_token(response.next_page_token());
  } while (!response.next_page_token().empty());
  EXPECT_THAT(names, ElementsAre("workers/w0", "workers/w1", "workers/w2"));
  pb::ListDeploymentsRequest deployments;
  deployments.set_page_token("AAAA");
  pb::ListDeploymentsResponse list;
  EXPECT_THAT(Call(stub_, &pb::ShardingCoordinator::Stub::ListDeployments,
                   deployments, &list),
              HasReason("PAGE_TOKEN_INVALID"));
}

TEST_F(CoordinatorServerTest, ListsAreBriefAndGetsAreNot) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::ListDeploymentsResponse list;
  ASSERT_THAT(Call(stub_, &pb::ShardingCoordinator::Stub::ListDeployments,
                   pb::ListDeploymentsRequest(), &list),
              IsOk());
  ASSERT_EQ(list.deployments_size(), 1);
  EXPECT_FALSE(list.deployments(0).has_module());
  EXPECT_EQ(list.deployments(0).state(), pb::Deployment::STATE_READY);
  pb::GetDeploymentRequest get;
  get.set_name(name_);
  pb::Deployment deployment;
  ASSERT_THAT(Call(stub_, &pb::ShardingCoordinator::Stub::GetDeployment, get,
                   &deployment),
              IsOk());
  EXPECT_EQ(deployment.module().parameters_size(), 4);
  EXPECT_EQ(deployment.plan_mesh_dim(), "tp");
  EXPECT_EQ(deployment.etag(), list.deployments(0).etag());
  pb::GetWorkerRequest get_worker;
  get_worker.set_name("workers/w0");
  pb::WorkerNode node;
  ASSERT_THAT(
      Call(stub_, &pb::ShardingCoordinator::Stub::GetWorker, get_worker, &node),
      IsOk());
  EXPECT_EQ(node.deployment(), name_);
  EXPECT_EQ(node.state(), pb::WorkerNode::STATE_READY);
}

TEST_F(CoordinatorServerTest, CountsWhatItServes) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  ASSERT_THAT(Step(StepRequestOf(1)), IsOk());
  ASSERT_THAT(Step(StepRequestOf(9)), HasReason("STEP_OUT_OF_TURN"));
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr("shardplane_steps_total{phase=\"train\","
                              "result=\"ok\"} 1"));
  EXPECT_THAT(text, HasSubstr("shardplane_workers{state=\"ready\"} 1"));
  EXPECT_THAT(text, HasSubstr("grpc_method=\"shardplane.v1."
                              "ShardingCoordinator/Step\""));
  EXPECT_THAT(text, HasSubstr("grpc_status=\"ABORTED\""));
}

}  // namespace
}  // namespace shardplane
