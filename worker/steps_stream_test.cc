#include "worker/steps_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "ipc/link.h"
#include "ipc/local_socket.h"
#include "ipc/step_socket.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/local_message.h"
#include "tests/matchers.h"
#include "worker/fake_executor.h"
#include "worker/fake_gang_store.h"
#include "worker/local_steps.h"
#include "worker/worker_convert.h"
#include "worker/worker_service.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;

// Its step socket is no other test's.
const uint64_t kIncarnation = std::random_device()();
// What a worker's executor is told to join a gang, and for each step: run,
// agree, commit.
constexpr size_t kCallsToJoin = 2;
constexpr size_t kCallsOfAStep = 3;

pb::StepsRequest::Step Step(uint64_t number,
                            const std::string& request_id = "") {
  pb::StepsRequest::Step step;
  pb::GangRef& gang = *step.mutable_run()->mutable_gang();
  gang.set_deployment("deployments/d");
  gang.set_epoch(1);
  gang.set_incarnation(kIncarnation);
  gang.set_request_id(request_id);
  step.mutable_run()->set_step(number);
  step.mutable_run()->set_program("p");
  step.mutable_run()->set_mode(pb::RunRequest::MODE_TRAIN);
  step.mutable_run()->set_expected_hash(kCollectiveHashSeed);
  step.mutable_commit()->mutable_optimizer()->mutable_sgd()->set_lr(0.5);
  return step;
}

absl::Status StatusOfAnswer(const pb::StepsResponse::Step& answer) {
  return FromRpcStatus(answer.status());
}

// A client's end of a stream.
class Client {
 public:
  virtual ~Client() = default;
  bool Send(std::vector<pb::StepsRequest::Step> steps) {
    pb::StepsRequest message;
    for (auto& step : steps) *message.add_steps() = std::move(step);
    return Write(message);
  }
  // The next message; no steps in it: the stream has ended.
  std::vector<pb::StepsResponse::Step> ReadMessage() {
    pb::StepsResponse message;
    if (!ReadNext(&message)) return {};
    return {message.steps().begin(), message.steps().end()};
  }
  // The next `count` answers, in as many messages as they come.
  std::vector<pb::StepsResponse::Step> Read(size_t count) {
    std::vector<pb::StepsResponse::Step> answers;
    while (answers.size() < count) {
      std::vector<pb::StepsResponse::Step> more = ReadMessage();
      if (more.empty()) break;
      answers.insert(answers.end(), more.begin(), more.end());
    }
    return answers;
  }
  virtual void WritesDone() = 0;
  virtual absl::Status Finish() = 0;
  virtual void Cancel() = 0;

 private:
  virtual bool Write(const pb::StepsRequest& message) = 0;
  virtual bool ReadNext(pb::StepsResponse* message) = 0;
};

class GrpcClient : public Client {
 public:
  explicit GrpcClient(pb::Worker::Stub& stub)
      : stream_(stub.Steps(&context_)) {}
  void WritesDone() override { stream_->WritesDone(); }
  absl::Status Finish() override { return FromGrpcStatus(stream_->Finish()); }
  void Cancel() override { context_.TryCancel(); }

 private:
  bool Write(const pb::StepsRequest& message) override {
    return stream_->Write(message);
  }
  bool ReadNext(pb::StepsResponse* message) override {
    return stream_->Read(message);
  }
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::StepsRequest, pb::StepsResponse>>
      stream_;
};

// At the step socket. There a client that writes no more leaves, and asks for
// what is still to be answered before that.
class LocalClient : public Client, Link::Handler {
 public:
  LocalClient()
      : link_(ConnectLocally(StepSocketName(kIncarnation)).value()),
        thread_([this] { Run(); }) {}
  ~LocalClient() override {
    link_.Close();
    thread_.join();
  }
  void WritesDone() override {
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }
  absl::Status Finish() override {
    absl::MutexLock lock(&mutex_);
    if (done_ && !end_.has_value()) return absl::OkStatus();
    mutex_.Await(absl::Condition(&over_));
    return end_.value_or(absl::CancelledError("no word at the end"));
  }
  void Cancel() override { link_.Close(); }

 private:
  void Run() {
    link_.ReadOn();
    (void)link_.Run(*this);
    absl::MutexLock lock(&mutex_);
    over_ = true;
  }
  void OnMessage(absl::string_view bytes, absl::string_view rest) override {
    absl::MutexLock lock(&mutex_);
    if (absl::ConsumePrefix(&bytes, kEndTag)) {
      google::rpc::Status status;
      EXPECT_TRUE(ParseInTwo(bytes, rest, &status));
      end_ = FromRpcStatus(status);
      over_ = true;
    } else {
      EXPECT_TRUE(absl::ConsumePrefix(&bytes, kStepsTag));
      EXPECT_TRUE(ParseInTwo(bytes, rest, &came_.emplace_back()));
    }
    link_.ReadOn();
  }
  void OnSent() override {
    absl::MutexLock lock(&mutex_);
    later_ = false;
  }
  bool Write(const pb::StepsRequest& message) override {
    {
      absl::MutexLock lock(&mutex_);
      sent_ += message.steps_size();
      later_ = true;
    }
    const Link::Sent sent =
        link_.Send({kStepsTag, message.SerializeAsString()});
    absl::MutexLock lock(&mutex_);
    if (sent != Link::Sent::kLater) later_ = false;
    const auto gone = [this]()
                          ABSL_NO_THREAD_SAFETY_ANALYSIS { return !later_; };
    mutex_.Await(absl::Condition(&gone));
    return sent != Link::Sent::kNever;
  }
  bool ReadNext(pb::StepsResponse* message) override {
    absl::MutexLock lock(&mutex_);
    const auto told = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return !came_.empty() || over_ || (done_ && read_ == sent_);
    };
    mutex_.Await(absl::Condition(&told));
    if (came_.empty()) return false;
    *message = std::move(came_.front());
    came_.pop_front();
    read_ += message->steps_size();
    return true;
  }

  Link link_;
  absl::Mutex mutex_;
  std::deque<pb::StepsResponse> came_ ABSL_GUARDED_BY(mutex_);
  int sent_ ABSL_GUARDED_BY(mutex_) = 0;  // steps, as the next
  int read_ ABSL_GUARDED_BY(mutex_) = 0;
  bool later_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

enum class Carrier { kGrpc, kLocal };

// A worker with a fake executor, in a gang, served in this process.
class StepsStreamTest : public testing::TestWithParam<Carrier> {
 protected:
  StepsStreamTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = pb::Worker::NewStub(server_->InProcessChannel({}));
    EXPECT_THAT(worker_.Join({.deployment = "deployments/d",
                              .epoch = 1,
                              .incarnation = kIncarnation},
                             {.deployment = "deployments/d", .epoch = 1},
                             std::make_shared<FakeGangStore>()),
                IsOk());
    if (GetParam() == Carrier::kGrpc) return;
    auto local =
        LocalSteps::Start(kIncarnation, &worker_,
                          [this](const std::shared_ptr<StepsStream>& stream) {
                            service_.Keep(stream, "local");
                          });
    EXPECT_THAT(local, IsOk());
    local_ = *std::move(local);
  }
  std::unique_ptr<Client> Connect() {
    if (GetParam() == Carrier::kLocal) return std::make_unique<LocalClient>();
    return std::make_unique<GrpcClient>(*stub_);
  }
  // Hangs if a stream is not ended.
  ~StepsStreamTest() override { server_->Shutdown(); }

  // Waits until that many steps are committed and what they answer is known.
  void AwaitSteps(size_t count) {
    executor_.AwaitCalls(kCallsToJoin + kCallsOfAStep * count);
    worker_.Drain();
  }
  void BlockRuns() {
    executor_.block_run = std::make_shared<absl::Notification>();
    executor_.block_status = absl::OkStatus();
    executor_.run_began = std::make_shared<absl::Notification>();
  }

  FakeExecutor executor_;
  GangWorker worker_{kIncarnation, &executor_, nullptr};
  WorkerService service_{&worker_,
                         [](const std::string&, const GangCall&, int) {
                           return std::make_shared<FakeGangStore>();
                         }};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::Worker::Stub> stub_;
  std::unique_ptr<LocalSteps> local_;
};

INSTANTIATE_TEST_SUITE_P(Both, StepsStreamTest,
                         testing::Values(Carrier::kGrpc, Carrier::kLocal),
                         [](const auto& info) {
                           return info.param == Carrier::kGrpc ? "grpc"
                                                               : "local";
                         });

TEST_P(StepsStreamTest, AnswersStepsInOrder) {
  executor_.run_result = {
      .ran = {.counts = {{"forward", "all_reduce", 1, 8}}},
      .loss = HostTensor{{DType::kFloat32, {}}, std::string(4, '\0')},
      .gradient_norm = 2.5,
      .seconds = 0.5};
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), Step(2), Step(3)}));
  ASSERT_TRUE(client->Send({Step(4)}));
  client->WritesDone();
  const auto answers = client->Read(4);
  ASSERT_THAT(answers, SizeIs(4));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i].step(), i + 1);
    EXPECT_FALSE(answers[i].has_status());
    EXPECT_GE(answers[i].commit_seconds(), 0);
    const pb::RunResponse& run = answers[i].run();
    EXPECT_EQ(run.hash(), kCollectiveHashSeed);
    EXPECT_EQ(run.gradient_norm(), 2.5);
    EXPECT_EQ(run.seconds(), 0.5);
    EXPECT_EQ(run.loss().inline_().size(), 4);
    ASSERT_EQ(run.collectives_size(), 2);
    EXPECT_EQ(run.collectives(1).phase(), "commit");
    EXPECT_EQ(run.collectives(1).bytes(), 4);
  }
  EXPECT_THAT(client->ReadMessage(), IsEmpty());
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, AnswersThatWaitLeaveTogether) {
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), Step(2), Step(3), Step(4), Step(5)}));
  ASSERT_TRUE(client->Send({Step(6), Step(7), Step(8), Step(9), Step(10)}));
  AwaitSteps(10);
  // The first message has been on its way since the first answer was there;
  // at a local socket it takes no time.
  std::vector<uint64_t> numbers;
  int messages = 0;
  while (numbers.size() < 10) {
    ++messages;
    for (const auto& answer : client->ReadMessage()) {
      numbers.push_back(answer.step());
    }
  }
  if (GetParam() == Carrier::kGrpc) {
    EXPECT_THAT(messages, Le(2));
  }
  EXPECT_THAT(numbers, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST(AnswersLeaveTest, WhereNothingElseIsUnderWay) {
  EXPECT_TRUE(AnswersLeave(1, 1, 0, absl::ZeroDuration()));
}

TEST(AnswersLeaveTest, AtOnceWhereStepsAreLong) {
  EXPECT_TRUE(AnswersLeave(1, 1, 5, absl::Milliseconds(20)));
  EXPECT_TRUE(AnswersLeave(1, 1, 5, absl::InfiniteDuration()));
}

TEST(AnswersLeaveTest, TogetherWhereStepsAreShort) {
  EXPECT_FALSE(AnswersLeave(17, 17, 5, absl::Microseconds(300)));
  EXPECT_FALSE(AnswersLeave(17, 31, 1, absl::Microseconds(300)));
  EXPECT_TRUE(AnswersLeave(17, 32, 5, absl::Microseconds(300)));
  EXPECT_TRUE(AnswersLeave(32, 33, 5, absl::Microseconds(300)));
}

TEST_P(StepsStreamTest, ShortStepsAreAnsweredTogether) {
  const auto client = Connect();
  BlockRuns();
  std::vector<pb::StepsRequest::Step> steps;
  for (uint64_t number = 1; number <= 40; ++number)
    steps.push_back(Step(number));
  ASSERT_TRUE(client->Send(std::move(steps)));
  executor_.block_run->Notify();
  size_t answers = 0;
  size_t messages = 0;
  while (answers < 40) {
    const size_t more = client->ReadMessage().size();
    ASSERT_GT(more, 0);
    answers += more;
    ++messages;
  }
  EXPECT_EQ(answers, 40);
  // The fake takes microseconds a step; on a machine that stands still at
  // times some leave alone.
  EXPECT_LE(messages, 20);
}

TEST_P(StepsStreamTest, ReadsNoMoreThanItsQueueTakes) {
  constexpr int kSteps = 3 * StepsStream::kMaxOpen;
  const auto client = Connect();
  std::thread writer([&] {
    for (uint64_t number = 1; number <= kSteps; ++number) {
      EXPECT_TRUE(client->Send({Step(number)}));
    }
    client->WritesDone();
  });
  AwaitSteps(StepsStream::kMaxOpen);
  // Nobody has read an answer yet; a local socket holds more of them.
  if (GetParam() == Carrier::kGrpc) {
    EXPECT_THAT(executor_.calls(),
                SizeIs(kCallsToJoin + kCallsOfAStep * StepsStream::kMaxOpen));
  }
  const auto answers = client->Read(kSteps);
  writer.join();
  ASSERT_THAT(answers, SizeIs(kSteps));
  for (int i = 0; i < kSteps; ++i) {
    EXPECT_EQ(answers[i].step(), i + 1);
    EXPECT_FALSE(answers[i].has_status());
  }
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, FailedStepDoesNotEndTheStream) {
  executor_.run_status = absl::NotFoundError("no such upload");
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), Step(2)}));
  auto answers = client->Read(2);
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_FALSE(answers[0].has_run());
  EXPECT_THAT(StatusOfAnswer(answers[0]),
              StatusIs(StatusCode::kNotFound, "no such upload"));
  EXPECT_THAT(
      StatusOfAnswer(answers[1]),
      AllOf(StatusIs(StatusCode::kAborted, testing::_),
            HasReason("STEP_OUT_OF_TURN"), HasMetadata("expected", "1")));
  executor_.run_status = absl::OkStatus();
  pb::StepsRequest::Step stale = Step(1);
  stale.mutable_run()->mutable_gang()->set_incarnation(6);
  ASSERT_TRUE(client->Send({stale, Step(1)}));
  answers = client->Read(2);
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_THAT(StatusOfAnswer(answers[0]), HasReason("STALE_INCARNATION"));
  EXPECT_THAT(StatusOfAnswer(answers[1]), IsOk());
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, BadStepIsAnsweredInItsTurn) {
  pb::StepsRequest::Step mode = Step(2);
  mode.mutable_run()->set_mode(pb::RunRequest::MODE_FORWARD);
  pb::StepsRequest::Step commit = Step(2);
  commit.mutable_commit()->set_abandon(true);
  pb::StepsRequest::Step input = Step(2);
  input.mutable_run()->add_inputs();
  pb::StepsRequest::Step clip = Step(2);
  clip.mutable_commit()->set_clip_norm(-1);
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), mode, commit, input, clip, Step(2)}));
  const auto answers = client->Read(6);
  ASSERT_THAT(answers, SizeIs(6));
  EXPECT_THAT(StatusOfAnswer(answers[0]), IsOk());
  const char* fields[] = {"mode", "commit", "inputs[0].type.dtype",
                          "clip_norm"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i + 1].step(), 2);
    EXPECT_THAT(StatusOfAnswer(answers[i + 1]),
                AllOf(StatusIs(StatusCode::kInvalidArgument, testing::_),
                      HasMetadata("field", fields[i])));
  }
  EXPECT_THAT(StatusOfAnswer(answers[5]), IsOk());
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, StepWithoutANumberEndsTheStream) {
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), {}, Step(2)}));
  EXPECT_THAT(client->Read(2), SizeIs(1));
  EXPECT_THAT(client->Finish(),
              AllOf(StatusIs(StatusCode::kInvalidArgument, testing::_),
                    HasMetadata("field", "steps.run.step")));
  EXPECT_THAT(executor_.calls(), SizeIs(kCallsToJoin + kCallsOfAStep));
}

TEST_P(StepsStreamTest, InputsAreStagedAndNotCopied) {
  pb::StepsRequest::Step step = Step(1);
  const std::string bytes(1000, 'x');
  *step.mutable_run()->add_inputs() =
      ToProto(HostTensor{{DType::kUInt8, {1000}}, bytes});
  *step.mutable_run()->add_inputs() =
      ToProto(UploadedTensor{{DType::kUInt8, {1 << 22}}, "big"});
  const auto client = Connect();
  ASSERT_TRUE(client->Send({step}));
  ASSERT_THAT(client->Read(1), SizeIs(1));
  EXPECT_EQ(executor_.staged("inline:0").bytes, bytes);
  EXPECT_THAT(executor_.calls(),
              testing::Contains("run p of inline:0,upload:big"));
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());

  const char* const data = step.run().inputs(0).inline_().data();
  const absl::StatusOr<GangStep> moved = ToGangStep(std::move(step));
  ASSERT_THAT(moved, IsOk());
  EXPECT_EQ(moved->run.inline_inputs[0].second.bytes.data(), data);
}

TEST_P(StepsStreamTest, StepsOfAClientThatIsGoneAreRecorded) {
  BlockRuns();
  const auto gone = Connect();
  ASSERT_TRUE(gone->Send({Step(1, "r1"), Step(2, "r2")}));
  executor_.run_began->WaitForNotification();
  gone->Cancel();
  EXPECT_THAT(gone->Read(1), IsEmpty());
  EXPECT_THAT(gone->Finish(), StatusIs(StatusCode::kCancelled, testing::_));
  executor_.block_run->Notify();

  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(2, "r2"), Step(3, "r3")}));
  const auto answers = client->Read(2);
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_THAT(StatusOfAnswer(answers[0]), IsOk());
  EXPECT_THAT(StatusOfAnswer(answers[1]), IsOk());
  EXPECT_THAT(executor_.calls(), SizeIs(kCallsToJoin + 3 * kCallsOfAStep))
      << "each ran once";
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, AbortEndsTheStepThatRuns) {
  BlockRuns();
  executor_.block_status = absl::UnavailableError("aborted");
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1), Step(2)}));
  executor_.run_began->WaitForNotification();
  grpc::ClientContext context;
  pb::AbortRequest request;
  *request.mutable_gang() = Step(1).run().gang();
  google::protobuf::Empty response;
  ASSERT_TRUE(stub_->Abort(&context, request, &response).ok());
  const auto answers = client->Read(2);
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_THAT(StatusOfAnswer(answers[0]),
              StatusIs(StatusCode::kUnavailable, "aborted"));
  EXPECT_THAT(StatusOfAnswer(answers[1]), HasReason("STEP_OUT_OF_TURN"));
  client->WritesDone();
  EXPECT_THAT(client->Finish(), IsOk());
}

TEST_P(StepsStreamTest, ProcessThatEndsEndsItsStreams) {
  BlockRuns();
  const auto idle = Connect();
  const auto busy = Connect();
  ASSERT_TRUE(busy->Send({Step(1)}));
  executor_.run_began->WaitForNotification();
  // Both streams are there, whatever has been read of them.
  ASSERT_TRUE(idle->Send({}));
  service_.EndStreams();
  service_.EndStreams();
  EXPECT_THAT(idle->Read(1), IsEmpty());
  EXPECT_THAT(idle->Finish(),
              AllOf(StatusIs(StatusCode::kUnavailable, HasSubstr("ends")),
                    HasReason("WORKER_DRAINING")));
  executor_.block_run->Notify();
  const auto answers = busy->Read(2);
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_THAT(StatusOfAnswer(answers[0]), IsOk());
  EXPECT_THAT(busy->Finish(), HasReason("WORKER_DRAINING"));

  const auto late = Connect();
  EXPECT_THAT(late->Read(1), IsEmpty());
  EXPECT_THAT(late->Finish(), HasReason("WORKER_DRAINING"));
}

TEST_P(StepsStreamTest, ShutdownWithADeadlineEndsWhatIsLeft) {
  const auto client = Connect();
  ASSERT_TRUE(client->Send({Step(1)}));
  ASSERT_THAT(client->Read(1), SizeIs(1));
  server_->Shutdown(std::chrono::system_clock::now());
  if (local_ != nullptr) local_->AwaitEnd(absl::ZeroDuration());
  local_ = nullptr;
  EXPECT_THAT(client->Read(1), IsEmpty());
  EXPECT_THAT(client->Finish(), testing::Not(IsOk()));
}

// As large as they come, and more of them than a socket holds.
TEST_P(StepsStreamTest, LargeStepsArrive) {
  const auto client = Connect();
  for (uint64_t number = 1; number <= 4; ++number) {
    pb::StepsRequest::Step step = Step(number);
    const std::string bytes(1 << 20, static_cast<char>('a' + number));
    for (int i = 0; i < 3; ++i) {
      *step.mutable_run()->add_inputs() =
          ToProto(HostTensor{{DType::kUInt8, {1 << 20}}, bytes});
    }
    ASSERT_TRUE(client->Send({step}));
    ASSERT_THAT(client->Read(1), SizeIs(1));
    EXPECT_TRUE(executor_.staged("inline:2").bytes == bytes);
  }
}

// A worker at its step socket, and the bare other end of a connection.
class LocalStepsTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<LocalSteps>> Start() {
    return LocalSteps::Start(kIncarnation, &worker, [](const auto&) {});
  }

  FakeExecutor executor;
  GangWorker worker{kIncarnation, &executor, nullptr};
  std::unique_ptr<LocalSteps> local = Start().value();
  const FileDescriptor socket =
      ConnectLocally(StepSocketName(kIncarnation)).value();
};

// Its answers fill the socket, then the worker reads no more, and its own
// messages fill the socket too.
TEST_F(LocalStepsTest, ClientThatReadsNothingWaits) {
  constexpr uint64_t kMany = 100'000;
  uint64_t sent = 0;
  while (sent < kMany) {
    pb::StepsRequest message;  // no gang: all are refused
    message.add_steps()->mutable_run()->set_step(sent + 1);
    const std::string bytes = message.SerializeAsString();
    const absl::Status status = SendPacket(socket, {"m", kStepsTag, bytes}, {});
    if (status.ok()) {
      ++sent;
      continue;
    }
    ASSERT_THAT(status, StatusIs(StatusCode::kResourceExhausted, testing::_));
    pollfd polled{.fd = socket.get(), .events = POLLOUT, .revents = 0};
    if (poll(&polled, 1, /*timeout=*/200) == 0) break;
  }
  ASSERT_LT(sent, kMany);
  uint64_t answered = 0;
  while (answered < sent) {
    ASSERT_TRUE(AwaitReadable({socket.get()}, std::chrono::minutes(1)));
    const auto packet = ReceivePacket(socket);
    ASSERT_THAT(packet, IsOk());
    absl::string_view bytes = (*packet)->bytes;
    pb::StepsResponse response;
    ASSERT_TRUE(absl::ConsumePrefix(&bytes, absl::StrCat("m", kStepsTag)));
    ASSERT_TRUE(ParseInTwo(bytes, "", &response));
    for (const auto& step : response.steps()) {
      ASSERT_EQ(step.step(), ++answered);
    }
  }
}

TEST_F(LocalStepsTest, BytesThatAreNoStepsEndTheStream) {
  ASSERT_THAT(SendPacket(socket, {"mx"}, {}), IsOk());
  ASSERT_TRUE(AwaitReadable({socket.get()}, std::chrono::minutes(1)));
  const auto packet = ReceivePacket(socket);
  ASSERT_THAT(packet, IsOk());
  absl::string_view bytes = (*packet)->bytes;
  ASSERT_TRUE(absl::ConsumePrefix(&bytes, absl::StrCat("m", kEndTag)));
  google::rpc::Status status;
  ASSERT_TRUE(ParseInTwo(bytes, "", &status));
  EXPECT_THAT(FromRpcStatus(status),
              StatusIs(StatusCode::kInternal, HasSubstr("expected steps")));
}

TEST_F(LocalStepsTest, OneProcessHasTheName) {
  EXPECT_THAT(Start(), StatusIs(StatusCode::kUnavailable, HasSubstr("in use")));
  local = nullptr;
  EXPECT_THAT(Start(), IsOk());
}

}  // namespace
}  // namespace shardplane
