#include "worker/worker_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "grpcpp/grpcpp.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"
#include "tests/matchers.h"
#include "worker/fake_executor.h"
#include "worker/fake_gang_store.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kIncarnation = 7;

// A client over an in-process channel, with a fake executor behind it.
class WorkerServiceTest : public testing::Test {
 protected:
  WorkerServiceTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = pb::Worker::NewStub(server_->InProcessChannel({}));
  }
  ~WorkerServiceTest() override { server_->Shutdown(); }

  template <typename Request>
  Request For(uint64_t epoch) {
    Request request;
    *request.mutable_gang() = Gang(epoch);
    return request;
  }
  pb::GangRef Gang(uint64_t epoch) {
    pb::GangRef gang;
    gang.set_deployment("deployments/d");
    gang.set_epoch(epoch);
    gang.set_incarnation(kIncarnation);
    return gang;
  }
  // Calls a unary method.
  template <typename Request, typename Response>
  absl::Status Send(grpc::Status (pb::Worker::Stub::*method)(
                        grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return FromGrpcStatus((stub_.get()->*method)(&context, request, response));
  }
  absl::Status Join(uint64_t epoch) {
    auto request = For<pb::JoinGangRequest>(epoch);
    pb::MeshDim& dim = *request.mutable_mesh()->add_dims();
    dim.set_name("tp");
    dim.set_size(2);
    request.set_rank(1);
    request.set_rendezvous("coordinator:1");
    google::protobuf::Empty response;
    return Send(&pb::Worker::Stub::JoinGang, request, &response);
  }
  absl::Status Stage(uint64_t epoch, const HostTensor& tensor,
                     uint32_t damage = 0) {
    grpc::ClientContext context;
    google::protobuf::Empty response;
    auto writer = stub_->StageTensor(&context, &response);
    pb::StageTensorRequest first;
    *first.mutable_header()->mutable_gang() = Gang(epoch);
    first.mutable_header()->set_key("upload:x");
    *first.mutable_header()->mutable_type() = ToProto(tensor.type);
    writer->Write(first);
    SendChunks<pb::StageTensorRequest>(
        tensor.bytes, [&](pb::StageTensorRequest message) {
          if (message.chunk().last()) {
            message.mutable_chunk()->set_crc32(message.chunk().crc32() ^
                                               damage);
          }
          return writer->Write(message);
        });
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  }

  FakeExecutor executor_;
  GangWorker worker_{kIncarnation, &executor_, nullptr};
  std::string rendezvous_;
  WorkerService service_{
      &worker_, [this](const std::string& address, const GangCall&, int) {
        rendezvous_ = address;
        return std::make_shared<FakeGangStore>();
      }};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::Worker::Stub> stub_;
};

TEST_F(WorkerServiceTest, JoinsAsTheRequestSays) {
  ASSERT_THAT(Join(4), IsOk());
  EXPECT_EQ(rendezvous_, "coordinator:1");
  EXPECT_EQ(executor_.calls().back(), "join 4 rank 1");
}

TEST_F(WorkerServiceTest, RankOutsideTheMeshIsRefused) {
  auto request = For<pb::JoinGangRequest>(1);
  pb::MeshDim& dim = *request.mutable_mesh()->add_dims();
  dim.set_name("tp");
  dim.set_size(2);
  request.set_rank(2);
  google::protobuf::Empty response;
  const absl::Status status =
      Send(&pb::Worker::Stub::JoinGang, request, &response);
  EXPECT_THAT(status,
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("got: 2")));
  EXPECT_THAT(status, HasMetadata("field", "rank"));
}

TEST_F(WorkerServiceTest, ErrorsKeepTheirInfo) {
  ASSERT_THAT(Join(4), IsOk());
  google::protobuf::Empty response;
  const absl::Status status = Send(&pb::Worker::Stub::LeaveGang,
                                   For<pb::LeaveGangRequest>(3), &response);
  EXPECT_THAT(status, StatusIs(StatusCode::kAborted, HasSubstr("got: 3")));
  EXPECT_THAT(status, HasReason("STALE_EPOCH"));
  EXPECT_THAT(status, HasMetadata("expected", "4"));
}

TEST_F(WorkerServiceTest, StagesALargeTensor) {
  ASSERT_THAT(Join(1), IsOk());
  HostTensor tensor{{DType::kUInt8, {3 << 20}}, {}};
  for (int i = 0; i < 3 << 20; ++i) {
    tensor.bytes.push_back(static_cast<char>(i * 7));
  }
  ASSERT_THAT(Stage(1, tensor), IsOk());
  EXPECT_TRUE(executor_.staged("upload:x") == tensor);
}

TEST_F(WorkerServiceTest, WrongChecksumIsDataLoss) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(Stage(1, {{DType::kUInt8, {4}}, "abcd"}, /*damage=*/1),
              StatusIs(StatusCode::kDataLoss, testing::_));
  EXPECT_TRUE(executor_.staged("upload:x").bytes.empty());
}

TEST_F(WorkerServiceTest, TensorThatIsTooShortIsRefused) {
  ASSERT_THAT(Join(1), IsOk());
  EXPECT_THAT(Stage(1, {{DType::kUInt8, {5}}, "abcd"}),
              StatusIs(StatusCode::kInvalidArgument, testing::_));
}

TEST_F(WorkerServiceTest, RunsWithInlineAndStagedInputs) {
  ASSERT_THAT(Join(1), IsOk());
  auto request = For<pb::RunRequest>(1);
  request.set_step(1);
  request.set_program("p");
  request.set_mode(pb::RunRequest::MODE_TRAIN);
  *request.add_inputs() = ToProto(HostTensor{{DType::kUInt8, {2}}, "ab"});
  *request.add_inputs() =
      ToProto(UploadedTensor{{DType::kUInt8, {1 << 22}}, "big"});
  request.set_expected_hash(99);
  executor_.run_result = {
      .ran = {{{"forward", "all_reduce", 1, 8}}, 99},
      .loss = HostTensor{{DType::kFloat32, {}}, std::string(4, '\0')},
      .seconds = 0.5};
  pb::RunResponse response;
  ASSERT_THAT(Send(&pb::Worker::Stub::Run, request, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "run p of inline:0,upload:big");
  EXPECT_EQ(executor_.staged("inline:0").bytes, "ab");
  EXPECT_EQ(response.hash(), 99);
  EXPECT_EQ(response.seconds(), 0.5);
  EXPECT_EQ(response.loss().inline_().size(), 4u);
  ASSERT_EQ(response.collectives_size(), 1);
  EXPECT_EQ(response.collectives(0).kind(), "all_reduce");
}

TEST_F(WorkerServiceTest, RunWithoutAModeIsRefused) {
  pb::RunResponse response;
  EXPECT_THAT(Send(&pb::Worker::Stub::Run, For<pb::RunRequest>(1), &response),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("mode")));
}

TEST_F(WorkerServiceTest, RunTellsTheNorm) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result = {.ran = {{{"optimizer", "all_reduce", 1, 8}}, 99},
                          .gradient_norm = 2.5};
  auto request = For<pb::RunRequest>(1);
  request.set_step(3);
  request.set_program("p");
  request.set_mode(pb::RunRequest::MODE_TRAIN);
  request.set_gradient_norm(true);
  request.set_random_step(3);
  request.set_expected_hash(99);
  pb::RunResponse response;
  ASSERT_THAT(Send(&pb::Worker::Stub::Run, request, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "run p of  with norm at 3");
  EXPECT_EQ(response.gradient_norm(), 2.5);
  EXPECT_EQ(response.collectives(0).phase(), "optimizer");

  request.set_mode(pb::RunRequest::MODE_NORM);
  request.clear_program();
  ASSERT_THAT(Send(&pb::Worker::Stub::Run, request, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "norm");
  EXPECT_EQ(response.gradient_norm(), 2.5);
}

TEST_F(WorkerServiceTest, NormWhereThereIsNoneIsRefused) {
  ASSERT_THAT(Join(1), IsOk());
  auto request = For<pb::RunRequest>(1);
  request.set_program("p");
  request.set_mode(pb::RunRequest::MODE_FORWARD);
  request.set_gradient_norm(true);
  pb::RunResponse response;
  EXPECT_THAT(Send(&pb::Worker::Stub::Run, request, &response),
              AllOf(StatusIs(StatusCode::kInvalidArgument, testing::_),
                    HasMetadata("field", "gradient_norm")));
  request.set_mode(pb::RunRequest::MODE_NORM);
  EXPECT_THAT(Send(&pb::Worker::Stub::Run, request, &response),
              AllOf(StatusIs(StatusCode::kInvalidArgument, testing::_),
                    HasMetadata("field", "program")));
}

TEST_F(WorkerServiceTest, CommitsWithClippingAndGroups) {
  ASSERT_THAT(Join(1), IsOk());
  auto commit = For<pb::CommitRequest>(1);
  commit.set_step(1);
  commit.set_clip_norm(0.5);
  commit.mutable_optimizer()->mutable_adamw();
  auto& group = *commit.mutable_optimizer()->add_groups();
  group.add_patterns("*.bias");
  group.mutable_adamw();
  google::protobuf::Empty response;
  ASSERT_THAT(Send(&pb::Worker::Stub::Commit, commit, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "commit with AdamW clip 0.5");

  commit.set_clip_norm(0);
  EXPECT_THAT(Send(&pb::Worker::Stub::Commit, commit, &response),
              AllOf(StatusIs(StatusCode::kInvalidArgument, HasSubstr("got: 0")),
                    HasMetadata("field", "clip_norm")));
  commit.clear_clip_norm();
  group.mutable_adam();
  EXPECT_THAT(Send(&pb::Worker::Stub::Commit, commit, &response),
              AllOf(StatusIs(StatusCode::kInvalidArgument, HasSubstr("AdamW")),
                    HasMetadata("field", "optimizer.groups[0]")));
}

TEST_F(WorkerServiceTest, MaterializesWithCounts) {
  ASSERT_THAT(Join(1), IsOk());
  auto request = For<pb::MaterializeRequest>(1);
  auto& source = *request.add_parameters();
  source.set_fqn("w");
  *source.mutable_type() = ToProto(TensorType{DType::kFloat32, {2}});
  *source.mutable_spec() = ToProto(DTensorSpec{{Shard{0}}, {}});
  pb::MaterializeResponse response;
  ASSERT_THAT(Send(&pb::Worker::Stub::Materialize, request, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "materialize 1");
  EXPECT_EQ(response.collectives(0).kind(), "scatter");
  pb::GetProgressResponse progress;
  ASSERT_THAT(Send(&pb::Worker::Stub::GetProgress,
                   For<pb::GetProgressRequest>(1), &progress),
              IsOk());
  EXPECT_EQ(progress.bytes_done(), 8);
  EXPECT_EQ(progress.bytes_total(), 8);
}

TEST_F(WorkerServiceTest, TellsTheTimelineOfAStep) {
  ASSERT_THAT(Join(1), IsOk());
  executor_.run_result.timeline = {.begin_unix = 5, .spans = {{4, 1, 2}}};
  executor_.run_result.seconds = 1e-6;
  absl::Notification done;
  worker_.Step(
      {.deployment = "deployments/d", .epoch = 1, .incarnation = kIncarnation},
      GangStep{.run = {.step = 1,
                       .traceparent = "00-ab-cd-01",
                       .spec = {.program = "p", .mode = RunMode::kTrain},
                       .expected_hash = kCollectiveHashSeed}},
      [&done](const auto&) { done.Notify(); });
  done.WaitForNotification();
  auto request = For<pb::GetTimelineRequest>(1);
  request.set_step(1);
  pb::GetTimelineResponse response;
  ASSERT_THAT(Send(&pb::Worker::Stub::GetTimeline, request, &response), IsOk());
  EXPECT_EQ(response.begin_unix_nanos(), 5);
  EXPECT_EQ(response.run_nanos(), 1000);
  EXPECT_EQ(response.program(), "p");
  EXPECT_EQ(response.traceparent(), "00-ab-cd-01");
  EXPECT_GT(response.received_unix_nanos(), 0);
  ASSERT_EQ(response.spans_size(), 1);
  EXPECT_EQ(response.spans(0).instruction(), 4);
  EXPECT_EQ(response.spans(0).begin_nanos(), 1);
  EXPECT_EQ(response.spans(0).duration_nanos(), 2);
  request.set_step(2);
  EXPECT_THAT(Send(&pb::Worker::Stub::GetTimeline, request, &response),
              StatusIs(absl::StatusCode::kNotFound, testing::_));
}

TEST_F(WorkerServiceTest, CommitsAndReadsBack) {
  ASSERT_THAT(Join(1), IsOk());
  auto commit = For<pb::CommitRequest>(1);
  commit.set_step(1);
  commit.mutable_optimizer()->mutable_sgd()->set_lr(0.25);
  google::protobuf::Empty response;
  ASSERT_THAT(Send(&pb::Worker::Stub::Commit, commit, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "commit with SGD");

  executor_.tensor = {
      {{DType::kUInt8, {2}}, "ab"}, {DType::kUInt8, {4}}, {{Shard{0}}, {}}};
  auto request = For<pb::ReadTensorRequest>(1);
  request.mutable_tensor()->set_parameter("w");
  grpc::ClientContext context;
  auto reader = stub_->ReadTensor(&context, request);
  pb::ReadTensorResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_THAT(message.header().global().shape(), ElementsAre(4));
  const auto read = ReceiveChunks<pb::ReadTensorResponse>(
      {DType::kUInt8, {2}}, [&](auto* next) { return reader->Read(next); });
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->bytes, "ab");
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(WorkerServiceTest, ReadOfNothingIsRefused) {
  grpc::ClientContext context;
  auto reader = stub_->ReadTensor(&context, For<pb::ReadTensorRequest>(1));
  pb::ReadTensorResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_THAT(FromGrpcStatus(reader->Finish()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("tensor")));
}

TEST_F(WorkerServiceTest, AbortReachesTheExecutor) {
  ASSERT_THAT(Join(1), IsOk());
  auto request = For<pb::AbortRequest>(1);
  request.set_reason("rank 1 is lost");
  google::protobuf::Empty response;
  EXPECT_THAT(Send(&pb::Worker::Stub::Abort, request, &response), IsOk());
  EXPECT_EQ(executor_.calls().back(), "abort: rank 1 is lost");
}

}  // namespace
}  // namespace shardplane
