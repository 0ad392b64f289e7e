// Steps over a real stream, to a worker's service that does as it is told.
#include "coordinator/step_stream.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/errors.h"
#include "coordinator/cancellation.h"
#include "coordinator/grpc_worker_client.h"
#include "coordinator/step_wire.h"
#include "coordinator/worker_messages.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "shardplane/v1/worker.grpc.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

GangRef GangOf(uint64_t epoch) {
  return {DeploymentId{"d"}, GangEpoch{epoch}, Incarnation{7}, "id"};
}

std::shared_ptr<const TrainStep> StepOf(uint64_t number, size_t bytes = 8) {
  RunCall run{
      .step = StepNumber{number},
      .program = ProgramId{"p"},
      .mode = RunMode::kTrain,
      .inputs = {HostTensor{{DType::kInt8, {static_cast<int64_t>(bytes)}},
                            std::string(bytes, 'x')},
                 UploadedTensor{{DType::kFloat32, {2}}, "upload"}},
      .accumulate = true,
      .random_step = StepNumber{number},
      .gradient_norm = true};
  CommitCall commit{.step = StepNumber{number},
                    .optimizer = OptimizerOptions{SgdOptions{.lr = 0.5}},
                    .clip_norm = 2};
  return std::make_shared<const TrainStep>(std::move(run), std::move(commit));
}

TEST(StepWireTest, HeadAndSharedBytesAreOneStep) {
  const auto step = StepOf(3, 300);
  const TrainStep::Encoding& encoding = step->Encoded(&EncodeStep);
  std::string bytes;
  pb::StepsRequest expected;
  for (const uint64_t hash : {uint64_t{5}, uint64_t{6}}) {
    bytes += EncodeStepHead(GangOf(4), hash, encoding) + encoding.bytes;
    RunCall run = step->run();
    run.expected_hash = hash;
    auto& message = *expected.add_steps();
    *message.mutable_run() = ToProto(GangOf(4), run);
    *message.mutable_commit() = ToProto(GangOf(4), step->commit());
    message.mutable_commit()->clear_gang();
    message.mutable_commit()->clear_step();
  }
  pb::StepsRequest request;
  ASSERT_TRUE(request.ParseFromString(bytes));
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(request, expected))
      << request.DebugString();
}

TEST(StepWireTest, AnswersAreOutcomesOrErrors) {
  pb::StepsResponse::Step answer;
  answer.mutable_run()->set_seconds(2);
  answer.set_commit_seconds(0.5);
  const auto outcome = OutcomeFromProto(answer);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->run.seconds, 2);
  EXPECT_EQ(outcome->commit_seconds, 0.5);
  const absl::Status error = MakeError(absl::StatusCode::kNotFound, "boom",
                                       {.reason = "BOOM", .metadata = {}});
  *answer.mutable_status() = ToRpcStatus(error);
  EXPECT_EQ(OutcomeFromProto(answer).status(), error);
  answer.mutable_status()->clear_code();
  EXPECT_THAT(OutcomeFromProto(answer),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("got: OK")));
}

// The sizes of the messages that an outbox gives, each as soon as the one
// before it is written.
std::vector<size_t> Written(StepOutbox& outbox) {
  std::vector<size_t> sizes;
  grpc::ByteBuffer message;
  while (outbox.Take(0, &message)) {
    sizes.push_back(message.Length());
    outbox.Sent();
  }
  return sizes;
}
grpc::Slice Bytes(size_t size) { return grpc::Slice(std::string(size, 'x')); }

TEST(StepOutboxTest, StepsThatComeDuringAWriteTravelTogether) {
  StepOutbox outbox;
  grpc::ByteBuffer message;
  EXPECT_FALSE(outbox.Take(0, &message));
  outbox.Add(Bytes(1), Bytes(10));
  ASSERT_TRUE(outbox.Take(0, &message));
  EXPECT_TRUE(outbox.writing());
  for (int i = 0; i < 3; ++i) {
    outbox.Add(Bytes(2), Bytes(20));
    EXPECT_FALSE(outbox.Take(1, &message));
  }
  outbox.Sent();
  EXPECT_THAT(Written(outbox), ElementsAre(66));
}

TEST(StepOutboxTest, WorkerThatHasEnoughToDoGetsStepsTogether) {
  StepOutbox outbox;
  grpc::ByteBuffer message;
  const size_t enough = StepOutbox::kEnoughToDo;
  for (size_t i = 1; i < StepOutbox::kTogether; ++i) {
    outbox.Add(Bytes(1), Bytes(1));
    EXPECT_FALSE(outbox.Take(enough, &message));
  }
  EXPECT_TRUE(outbox.Take(enough - 1, &message));
  EXPECT_EQ(message.Length(), 2 * (StepOutbox::kTogether - 1));
  outbox.Sent();
  for (size_t i = 0; i < StepOutbox::kTogether; ++i) {
    outbox.Add(Bytes(1), Bytes(1));
  }
  EXPECT_TRUE(outbox.Take(100, &message));
}

TEST(StepOutboxTest, MessagesStayBelowTheLimit) {
  StepOutbox outbox;
  const size_t third = StepOutbox::kMaxMessageBytes / 3;
  for (int i = 0; i < 4; ++i) {
    outbox.Add(Bytes(1), Bytes(third - 1));
  }
  outbox.Add(Bytes(1), Bytes(2 * third + 9));
  // One that is too large for any other stands alone.
  outbox.Add(Bytes(1), Bytes(StepOutbox::kMaxMessageBytes + 5));
  outbox.Add(Bytes(1), Bytes(6));
  EXPECT_THAT(Written(outbox),
              ElementsAre(3 * third, third, 2 * third + 10,
                          StepOutbox::kMaxMessageBytes + 6, 7));
}

// Answers what it reads as it is told.
class ScriptedWorker : public pb::Worker::Service {
 public:
  grpc::Status Steps(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>* stream)
      override {
    pb::StepsRequest request;
    while (stream->Read(&request)) {
      std::function<grpc::Status(const pb::StepsRequest&, decltype(stream))>
          react;
      {
        absl::MutexLock lock(&mu_);
        react = react_;
      }
      const grpc::Status status = react(request, stream);
      if (!status.ok()) return status;
    }
    absl::MutexLock lock(&mu_);
    ++ended_;
    return grpc::Status::OK;
  }
  grpc::Status LeaveGang(grpc::ServerContext*, const pb::LeaveGangRequest*,
                         google::protobuf::Empty*) override {
    return grpc::Status::OK;
  }

  using Reaction = std::function<grpc::Status(
      const pb::StepsRequest& request,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>* stream)>;
  void React(Reaction react) {
    absl::MutexLock lock(&mu_);
    react_ = std::move(react);
  }
  // Until so many streams have ended.
  void AwaitEnds(int count) {
    absl::MutexLock lock(&mu_);
    const auto ended = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return ended_ >= count;
    };
    mu_.Await(absl::Condition(&ended));
  }
  // All of a message in one.
  static grpc::Status Answer(
      const pb::StepsRequest& request,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>* stream) {
    pb::StepsResponse response;
    for (const auto& step : request.steps()) {
      auto& answer = *response.add_steps();
      answer.set_step(step.run().step());
      answer.mutable_run()->set_seconds(step.run().step());
    }
    stream->Write(response);
    return grpc::Status::OK;
  }
  static grpc::Status Ignore(
      const pb::StepsRequest&,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>*) {
    return grpc::Status::OK;
  }

 private:
  absl::Mutex mu_;
  Reaction react_ ABSL_GUARDED_BY(mu_) = &Answer;
  int ended_ ABSL_GUARDED_BY(mu_) = 0;
};

class StepStreamTest : public ::testing::Test {
 protected:
  StepStreamTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&worker_);
    server_ = builder.BuildAndStart();
    client_ = ConnectToWorker("127.0.0.1:" + std::to_string(port));
    // gRPC 1.51 frees its queue for callbacks with the last channel that has
    // used it, and may do so twice where another one comes at that moment.
    static const auto* const kept = new std::shared_ptr<WorkerClient>(client_);
    static_cast<void>(kept);
  }
  ~StepStreamTest() override {
    client_.reset();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  void Add(uint64_t number, size_t bytes = 8,
           absl::Duration timeout = absl::Minutes(1), uint64_t epoch = 1) {
    {
      absl::MutexLock lock(&mu_);
      ++added_;
    }
    client_->Step(GangOf(epoch), StepOf(number, bytes), 9,
                  {timeout, &cancellation_},
                  [this](absl::StatusOr<StepOutcome> outcome) {
                    absl::MutexLock lock(&mu_);
                    outcomes_.push_back(std::move(outcome));
                  });
  }
  // All that were added, in the order in which they came.
  std::vector<absl::StatusOr<StepOutcome>> Outcomes() {
    absl::MutexLock lock(&mu_);
    const auto all = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return outcomes_.size() == added_;
    };
    mu_.Await(absl::Condition(&all));
    return outcomes_;
  }
  absl::Status Leave(uint64_t epoch) {
    absl::Mutex mu;
    std::optional<absl::Status> left;
    client_->LeaveGang(GangOf(epoch), {}, [&](absl::Status status) {
      absl::MutexLock lock(&mu);
      left = std::move(status);
    });
    absl::MutexLock lock(&mu);
    const auto done = [&] { return left.has_value(); };
    mu.Await(absl::Condition(&done));
    return *left;
  }

  ScriptedWorker worker_;
  std::unique_ptr<grpc::Server> server_;
  Cancellation cancellation_;
  std::shared_ptr<WorkerClient> client_;
  absl::Mutex mu_;
  size_t added_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::StatusOr<StepOutcome>> outcomes_ ABSL_GUARDED_BY(mu_);
};

MATCHER_P(RanFor, seconds, "") {
  return arg.ok() && arg->run.seconds == seconds;
}
const auto kGone = StatusIs(absl::StatusCode::kUnavailable, ::testing::_);
const auto kCancelled = StatusIs(absl::StatusCode::kCancelled, ::testing::_);

MATCHER(HasNoInfo, "") { return !GetErrorInfo(arg.status()).has_value(); }

TEST_F(StepStreamTest, AnswersComeInOrder) {
  for (const uint64_t number : {1, 2, 3}) {
    Add(number);
  }
  EXPECT_THAT(Outcomes(), ElementsAre(RanFor(1), RanFor(2), RanFor(3)));
}

TEST_F(StepStreamTest, ManyStepsArrive) {
  std::vector<double> expected;
  for (uint64_t number = 1; number <= 100; ++number) {
    Add(number);
    expected.push_back(number);
  }
  std::vector<double> ran;
  for (const auto& outcome : Outcomes()) {
    ran.push_back(outcome.ok() ? outcome->run.seconds : -1);
  }
  EXPECT_EQ(ran, expected);
}

TEST_F(StepStreamTest, LargeStepsArrive) {
  for (const uint64_t number : {1, 2, 3, 4}) {
    Add(number, 3 << 20);
  }
  EXPECT_THAT(Outcomes(),
              ElementsAre(RanFor(1), RanFor(2), RanFor(3), RanFor(4)));
}

TEST_F(StepStreamTest, StepThatFailsEndsNothingElse) {
  worker_.React([](const pb::StepsRequest& request, auto* stream) {
    pb::StepsResponse response;
    auto& answer = *response.add_steps();
    answer.set_step(request.steps(0).run().step());
    *answer.mutable_status() =
        ToRpcStatus(MakeError(absl::StatusCode::kNotFound, "boom",
                              {.reason = "BOOM", .metadata = {}}));
    stream->Write(response);
    return grpc::Status::OK;
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(HasReason("BOOM")));
  worker_.React(&ScriptedWorker::Answer);
  Add(1);
  EXPECT_THAT(Outcomes()[1], RanFor(1));
}

TEST_F(StepStreamTest, ConnectionThatBreaksFailsAllAsUnavailable) {
  worker_.React(&ScriptedWorker::Ignore);
  Add(1);
  Add(2);
  server_->Shutdown(std::chrono::system_clock::now());
  EXPECT_THAT(Outcomes(), ElementsAre(AllOf(kGone, HasNoInfo()),
                                      AllOf(kGone, HasNoInfo())));
  Add(3);
  EXPECT_THAT(Outcomes()[2], AllOf(kGone, HasNoInfo()));
}

TEST_F(StepStreamTest, WorkersOwnWordIsKept) {
  worker_.React([](const auto&, auto*) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable, "it drains",
                                  {.reason = "DRAINING", .metadata = {}}));
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(HasReason("DRAINING")));
  worker_.React(&ScriptedWorker::Answer);
  Add(2);  // over another stream
  EXPECT_THAT(Outcomes()[1], RanFor(2));
}

TEST_F(StepStreamTest, StreamThatEndsWithoutAWordIsABrokenConnection) {
  worker_.React([](const auto&, auto*) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "a frame was bad");
  });
  Add(1);
  EXPECT_THAT(Outcomes(),
              ElementsAre(AllOf(StatusIs(absl::StatusCode::kUnavailable,
                                         HasSubstr("a frame was bad")),
                                HasNoInfo())));
}

TEST_F(StepStreamTest, AnswerToAnotherStepIsAnError) {
  worker_.React([](const auto&, auto* stream) {
    pb::StepsResponse response;
    response.add_steps()->set_step(7);
    stream->Write(response);
    return grpc::Status::OK;
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(StatusIs(absl::StatusCode::kInternal,
                                               HasSubstr("oldest step"))));
}

TEST_F(StepStreamTest, CancellationEndsAll) {
  worker_.React(&ScriptedWorker::Ignore);
  Add(1);
  Add(2);
  cancellation_.Cancel();
  EXPECT_THAT(Outcomes(), ElementsAre(kCancelled, kCancelled));
  Add(3);
  EXPECT_THAT(Outcomes()[2], kCancelled);
}

TEST_F(StepStreamTest, StepThatTakesTooLongEndsThoseBehindIt) {
  // A step's time begins when the one before it is answered: here when the
  // third is there, which is never answered, and neither is the second.
  worker_.React([](const pb::StepsRequest& request, auto* stream) {
    for (const auto& step : request.steps()) {
      if (step.run().step() == 3) {
        pb::StepsRequest first;
        first.add_steps()->mutable_run()->set_step(1);
        return ScriptedWorker::Answer(first, stream);
      }
    }
    return grpc::Status::OK;
  });
  Add(1);
  Add(2, 8, absl::Milliseconds(1));
  Add(3);
  EXPECT_THAT(Outcomes(),
              ElementsAre(RanFor(1),
                          StatusIs(absl::StatusCode::kDeadlineExceeded,
                                   HasSubstr("too long")),
                          kCancelled));
}

TEST_F(StepStreamTest, LeavingTheGangEndsItsStream) {
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(RanFor(1)));
  EXPECT_THAT(Leave(1), IsOk());
  worker_.AwaitEnds(1);
  worker_.React(&ScriptedWorker::Ignore);
  Add(2, 8, absl::Minutes(1), /*epoch=*/2);
  EXPECT_THAT(Leave(1), IsOk());  // an older one: the stream stays
  EXPECT_THAT(Leave(2), IsOk());
  EXPECT_THAT(Outcomes()[1], kCancelled);
}

TEST_F(StepStreamTest, NewerGangEndsTheOldOnesStream) {
  worker_.React([](const pb::StepsRequest& request, auto* stream) {
    return request.steps(0).run().gang().epoch() == 2
               ? ScriptedWorker::Answer(request, stream)
               : grpc::Status::OK;
  });
  Add(1);
  Add(1, 8, absl::Minutes(1), /*epoch=*/2);
  EXPECT_THAT(Outcomes(),
              ::testing::UnorderedElementsAre(kCancelled, RanFor(1)));
}

}  // namespace
}  // namespace shardplane
