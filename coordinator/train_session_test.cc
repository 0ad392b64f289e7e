// Train over a real connection, with fake workers behind it.
#include "coordinator/train_session.h"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/coordinator_server.h"
#include "coordinator/fake_worker.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kIdleLimit = absl::Seconds(5);

// A deployment over `ranks` fake workers, made without the network, and a
// server before it.
class TrainSessionTest : public ::testing::Test {
 protected:
  using Stream = grpc::ClientReaderWriter<pb::TrainRequest, pb::TrainResponse>;

  TrainSessionTest() {
    CoordinatorServer::Options options;
    options.coordinator = cluster_.options();
    options.stream_idle_limit = kIdleLimit;
    options.tick = absl::Milliseconds(5);
    server_ = *CoordinatorServer::Start(std::move(options));
    stub_ = pb::ShardingCoordinator::NewStub(grpc::CreateChannel(
        server_->address(), grpc::InsecureChannelCredentials()));
  }

  Coordinator& coordinator() { return server_->coordinator(); }
  FakeWorker& worker(const std::string& id) { return cluster_.worker(id); }
  absl::Status Register(const std::string& id) {
    return coordinator()
        .RegisterWorker({.id = WorkerId{id},
                         .incarnation = Incarnation{7},
                         .address = id,
                         .device = "cpu"})
        .status();
  }
  void Deploy(int ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      ASSERT_THAT(Register(absl::StrCat("w", rank)), IsOk());
    }
    DeploymentSpec spec = MlpSpec(ranks);
    spec.src_data_rank = std::nullopt;
    const auto info = coordinator().CreateDeployment(
        {.spec = spec, .signature = MlpSignature(WithLoss::kSum)}, {});
    ASSERT_THAT(info, IsOk());
    id_ = info->id;
    program_ = info->programs[0];
    const GraphModule module = SequentialMlp();
    for (const Parameter& parameter : module.parameters()) {
      const auto upload = coordinator().Upload({.deployment = id_,
                                                .type = parameter.type,
                                                .parameter = parameter.fqn});
      ASSERT_THAT(upload, IsOk());
      const std::string bytes(ByteSize(parameter.type), '\0');
      TensorChunker chunker(bytes);
      v1::TensorData chunk;
      while (chunker.Next(&chunk)) {
        ASSERT_THAT((*upload)->Write(chunk), IsOk());
      }
      ASSERT_THAT((*upload)->Finish(), IsOk());
    }
    ASSERT_THAT(coordinator().MaterializeDeployment(id_, {}, {}), IsOk());
  }
  pb::StepRequest StepOf(uint64_t number, char fill = 0) {
    pb::StepRequest request;
    request.set_deployment(ResourceName(id_));
    request.set_step(number);
    request.mutable_train()->set_program(ResourceName(id_, program_));
    *request.mutable_train()->add_inputs() =
        ToProto(HostTensor{MlpInput(), std::string(240, fill)});
    *request.mutable_train()->mutable_optimizer() =
        ToProto(OptimizerOptions{SgdOptions{.lr = 0.25}});
    return request;
  }
  // One message a list.
  static void Write(Stream& stream, std::vector<pb::StepRequest> steps) {
    pb::TrainRequest request;
    for (pb::StepRequest& step : steps) {
      *request.add_steps() = std::move(step);
    }
    EXPECT_TRUE(stream.Write(request));
  }
  // The numbers of the next results, at least `count` of them, or all.
  static std::vector<uint64_t> Read(Stream& stream, size_t count = SIZE_MAX) {
    std::vector<uint64_t> numbers;
    pb::TrainResponse response;
    while (numbers.size() < count && stream.Read(&response)) {
      for (const pb::StepResult& result : response.steps()) {
        numbers.push_back(result.number());
      }
    }
    return numbers;
  }
  static absl::Status Finish(Stream& stream) {
    return FromGrpcStatus(stream.Finish());
  }
  StepNumber LastStep() { return coordinator().GetDeployment(id_)->last_step; }
  // Until that many steps have taken effect, whoever asked for them.
  void AwaitLastStep(uint64_t number) {
    while (LastStep() < StepNumber{number}) {
      std::this_thread::yield();
    }
  }

  FakeCluster cluster_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<pb::ShardingCoordinator::Stub> stub_;
  DeploymentId id_;
  ProgramId program_;
};

TEST_F(TrainSessionTest, ResultsComeInOrder) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1)});
  Write(*stream, {StepOf(2), StepOf(3), StepOf(4)});
  stream->WritesDone();
  EXPECT_THAT(Read(*stream), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Finish(*stream), IsOk());
  EXPECT_EQ(LastStep(), StepNumber{4});
  EXPECT_EQ(worker("w1").calls(Method::kStep), 4);
}

TEST_F(TrainSessionTest, StepsBeginBeforeEarlierOnesAreOver) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1)});
  Write(*stream, {StepOf(2), StepOf(3)});
  worker("w0").WaitForCalls(Method::kStep, 3);
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Read(*stream, 3), ElementsAre(1, 2, 3));
  Write(*stream, {StepOf(4)});  // it is still open
  EXPECT_THAT(Read(*stream, 1), ElementsAre(4));
  stream->WritesDone();
  EXPECT_THAT(Finish(*stream), IsOk());
}

TEST_F(TrainSessionTest, ResultsAreAsStepGivesThem) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1)});
  pb::TrainResponse response;
  ASSERT_TRUE(stream->Read(&response));
  pb::GetStepRequest request;
  request.set_name(ResourceName(id_, StepNumber{1}));
  grpc::ClientContext get_context;
  pb::StepResult result;
  ASSERT_TRUE(stub_->GetStep(&get_context, request, &result).ok());
  EXPECT_EQ(response.steps(0).SerializeAsString(), result.SerializeAsString());
  EXPECT_TRUE(result.has_loss());
  // The same step again, by either way, is answered, not repeated.
  grpc::ClientContext step_context;
  pb::StepResult again;
  ASSERT_TRUE(stub_->Step(&step_context, StepOf(1), &again).ok());
  EXPECT_EQ(again.SerializeAsString(), result.SerializeAsString());
  Write(*stream, {StepOf(1), StepOf(2)});
  EXPECT_THAT(Read(*stream, 2), ElementsAre(1, 2));
  EXPECT_EQ(worker("w0").calls(Method::kStep), 2);
}

TEST_F(TrainSessionTest, FirstErrorEndsTheStream) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  worker("w0").Hold(Method::kStep);
  worker("w1").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2), StepOf(3), StepOf(4)});
  worker("w1").WaitForCalls(Method::kStep, 4);
  // The first ends well, the second does not.
  for (const char* id : {"w0", "w1"}) {
    worker(id).FailNext(Method::kStep, absl::OkStatus());
  }
  worker("w0").FailNext(Method::kStep, Refusal());
  worker("w1").FailNext(Method::kStep, PeerFailed());
  worker("w0").Release(Method::kStep);
  worker("w1").Release(Method::kStep);
  EXPECT_THAT(Read(*stream), ElementsAre(1));
  EXPECT_THAT(Finish(*stream),
              AllOf(HasReason("BOOM"), HasMetadata("step", "2"),
                    HasMetadata("rank", "0")));
}

TEST_F(TrainSessionTest, NextStreamGoesOnAfterAnError) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2), StepOf(3)});
  worker("w0").WaitForCalls(Method::kStep, 3);
  worker("w0").FailNext(Method::kStep, Refusal());
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Read(*stream), IsEmpty());
  EXPECT_THAT(Finish(*stream),
              AllOf(HasReason("BOOM"), HasMetadata("step", "1")));
  EXPECT_EQ(LastStep(), StepNumber{0});
  grpc::ClientContext next_context;
  const auto next = stub_->Train(&next_context);
  Write(*next, {StepOf(1, 'x'), StepOf(2, 'x')});
  EXPECT_THAT(Read(*next, 2), ElementsAre(1, 2));
}

struct BadStep {
  std::string name;
  std::function<void(pb::StepRequest&)> spoil;
  absl::StatusCode code;
  std::string field;
  friend void PrintTo(const BadStep& c, std::ostream* out) { *out << c.name; }
};
class BadStepTest : public TrainSessionTest,
                    public ::testing::WithParamInterface<BadStep> {};
TEST_P(BadStepTest, EndsTheStreamAfterThoseBeforeIt) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  pb::StepRequest bad = StepOf(2);
  GetParam().spoil(bad);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), bad, StepOf(3)});
  EXPECT_THAT(Read(*stream), ElementsAre(1));
  EXPECT_THAT(Finish(*stream),
              AllOf(StatusIs(GetParam().code, ::testing::_),
                    HasMetadata("field", GetParam().field),
                    HasMetadata("step", absl::StrCat(bad.step()))));
  EXPECT_EQ(worker("w0").calls(Method::kStep), 1);
}
INSTANTIATE_TEST_SUITE_P(
    All, BadStepTest,
    ::testing::Values(
        BadStep{"number", [](auto& step) { step.set_step(7); },
                absl::StatusCode::kAborted, "step"},
        BadStep{"update", [](auto& step) { step.mutable_update(); },
                absl::StatusCode::kInvalidArgument, "action"},
        BadStep{"no action", [](auto& step) { step.clear_train(); },
                absl::StatusCode::kInvalidArgument, "action"},
        BadStep{"another deployment",
                [](auto& step) { step.set_deployment("deployments/other"); },
                absl::StatusCode::kInvalidArgument, "deployment"},
        BadStep{"input",
                [](auto& step) { step.mutable_train()->clear_inputs(); },
                absl::StatusCode::kInvalidArgument, "train.inputs"},
        BadStep{"clip_norm",
                [](auto& step) { step.mutable_train()->set_clip_norm(-1); },
                absl::StatusCode::kInvalidArgument, "train.clip_norm"},
        BadStep{"epoch", [](auto& step) { step.set_epoch(999); },
                absl::StatusCode::kAborted, "epoch"}),
    CaseName<BadStep>);

TEST_F(TrainSessionTest, StepsOfAClientThatGoesAreRecorded) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  {
    grpc::ClientContext context;
    const auto stream = stub_->Train(&context);
    Write(*stream, {StepOf(1), StepOf(2)});
    worker("w0").WaitForCalls(Method::kStep, 2);
    context.TryCancel();
    EXPECT_THAT(Finish(*stream),
                StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  }
  worker("w0").Release(Method::kStep);
  AwaitLastStep(2);
  // Who comes back repeats what it has not heard of, and goes on.
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2), StepOf(3)});
  EXPECT_THAT(Read(*stream, 3), ElementsAre(1, 2, 3));
  EXPECT_EQ(worker("w0").calls(Method::kStep), 3);
}

TEST_F(TrainSessionTest, RepeatedStepsWaitForThoseStillUnderWay) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext gone_context;
  const auto gone = stub_->Train(&gone_context);
  Write(*gone, {StepOf(1), StepOf(2)});
  worker("w0").WaitForCalls(Method::kStep, 2);
  gone_context.TryCancel();
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2), StepOf(3)});
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Read(*stream, 3), ElementsAre(1, 2, 3));
  EXPECT_EQ(worker("w0").calls(Method::kStep), 3);
}

TEST_F(TrainSessionTest, ReadsNoFurtherThanTheWindow) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  for (uint64_t number = 1; number <= kMaxStepsUnderWay + 20; ++number) {
    Write(*stream, {StepOf(number)});
  }
  worker("w0").WaitForCalls(Method::kStep, kMaxStepsUnderWay);
  EXPECT_EQ(worker("w0").calls(Method::kStep), kMaxStepsUnderWay);
  worker("w0").Release(Method::kStep);
  EXPECT_EQ(Read(*stream, kMaxStepsUnderWay + 20).size(),
            kMaxStepsUnderWay + 20);
}

TEST_F(TrainSessionTest, SilentClientIsCutOffUnlessStepsAreUnderWay) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1)});
  worker("w0").WaitForCalls(Method::kStep, 1);
  // A little at a time, so that the worker's lease holds.
  const auto pass = [this](absl::Duration time) {
    for (absl::Duration t; t < time; t += absl::Seconds(1)) {
      cluster_.Advance(absl::Seconds(1));
      EXPECT_THAT(Register("w0"), IsOk());
      coordinator().Tick();
    }
  };
  pass(3 * kIdleLimit);
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Read(*stream, 1), ElementsAre(1));
  std::atomic<bool> noticed = false;
  std::thread time([&] {
    while (!noticed) {
      pass(absl::Seconds(1));
    }
  });
  EXPECT_THAT(Finish(*stream),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  noticed = true;
  time.join();
}

TEST_F(TrainSessionTest, WorkerThatDiesEndsTheStreamAndIsNamed) {
  ASSERT_NO_FATAL_FAILURE(Deploy(2));
  worker("w0").Hold(Method::kStep);
  worker("w1").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2)});
  worker("w1").WaitForCalls(Method::kStep, 2);
  worker("w1").Die();
  EXPECT_THAT(Finish(*stream),
              AllOf(StatusIs(absl::StatusCode::kUnavailable,
                             HasSubstr("worker w1 (rank 1) is gone")),
                    HasMetadata("step", "1")));
}

TEST_F(TrainSessionTest, ServerThatDrainsAnswersWhatHasBegun) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  worker("w0").Hold(Method::kStep);
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  Write(*stream, {StepOf(1), StepOf(2)});
  worker("w0").WaitForCalls(Method::kStep, 2);
  std::thread drain([this] { server_->Drain(absl::Seconds(20)); });
  while (server_->Serving().ok()) {
    std::this_thread::yield();
  }
  worker("w0").Release(Method::kStep);
  EXPECT_THAT(Read(*stream), ElementsAre(1, 2));
  EXPECT_THAT(Finish(*stream), HasReason("SHUTTING_DOWN"));
  drain.join();
}

TEST_F(TrainSessionTest, ManyStreamsComeAndGo) {
  ASSERT_NO_FATAL_FAILURE(Deploy(1));
  for (uint64_t number = 1; number <= 20; ++number) {
    grpc::ClientContext context;
    const auto stream = stub_->Train(&context);
    Write(*stream, {StepOf(number)});
    EXPECT_THAT(Read(*stream, 1), ElementsAre(number));
    if (number % 2 == 0) {
      context.TryCancel();
    } else {
      stream->WritesDone();
    }
    stream->Finish();
  }
  EXPECT_EQ(LastStep(), StepNumber{20});
}

}  // namespace
}  // namespace shardplane
