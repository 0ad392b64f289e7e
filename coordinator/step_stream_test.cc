// Steps over real streams of either kind, to a worker that does as it is told.
#include "coordinator/step_stream.h"

#include <fcntl.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "common/errors.h"
#include "coordinator/cancellation.h"
#include "coordinator/grpc_worker_client.h"
#include "coordinator/step_outbox.h"
#include "coordinator/step_wire.h"
#include "coordinator/worker_messages.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/link.h"
#include "ipc/local_socket.h"
#include "ipc/shared_bytes.h"
#include "ipc/step_socket.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/local_message.h"
#include "shardplane/v1/worker.grpc.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

GangRef GangOf(uint64_t epoch, uint64_t incarnation = 7) {
  return {DeploymentId{"d"}, GangEpoch{epoch}, Incarnation{incarnation}, "id"};
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
  EXPECT_EQ(encoding.bytes, absl::StrJoin(encoding.pieces, "").size());
  std::string bytes;
  pb::StepsRequest expected;
  for (const uint64_t hash : {uint64_t{5}, uint64_t{6}}) {
    absl::StrAppend(&bytes, EncodeStepHead(GangOf(4), hash, encoding),
                    absl::StrJoin(encoding.pieces, ""));
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

// The only copy of them is the one that is sent.
TEST(StepWireTest, LargeInputsStayWhereTheyAre) {
  const auto step = StepOf(3, 5000);
  const auto& input = std::get<HostTensor>(step->run().inputs[0]);
  const TrainStep::Encoding& encoding = step->Encoded(&EncodeStep);
  ASSERT_THAT(encoding.pieces, SizeIs(3));
  EXPECT_EQ(encoding.pieces[1].data(), input.bytes.data());
  EXPECT_THAT(StepOf(3, 4000)->Encoded(&EncodeStep).pieces, SizeIs(1));
  pb::StepsRequest request;
  ASSERT_TRUE(request.ParseFromString(
      absl::StrCat(EncodeStepHead(GangOf(4), 5, encoding),
                   absl::StrJoin(encoding.pieces, ""))));
  EXPECT_EQ(request.steps(0).run().inputs(0).inline_(), input.bytes);
}

TEST(StepWireTest, RanksShareOneCopy) {
  const auto step = StepOf(3, 5000);
  const auto shared = step->Shared(&EncodeStep);
  ASSERT_NE(shared, nullptr);
  EXPECT_EQ(step->Shared(&EncodeStep), shared);
  const auto mapped = MappedBytes::Map(
      FileDescriptor(fcntl(shared->file(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_THAT(mapped, IsOk());
  EXPECT_EQ(mapped->bytes(),
            absl::StrJoin(step->Encoded(&EncodeStep).pieces, ""));
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

size_t SizeOf(const std::vector<OutgoingStep>& message) {
  size_t size = 0;
  for (const OutgoingStep& each : message) size += each.bytes;
  return size;
}

// The sizes of the messages that an outbox gives, each as soon as the one
// before it is written.
std::vector<size_t> Written(StepOutbox& outbox) {
  std::vector<size_t> sizes;
  while (const size_t size = SizeOf(outbox.Take(0))) {
    sizes.push_back(size);
    outbox.Sent();
  }
  return sizes;
}

TEST(StepOutboxTest, StepsThatComeDuringAWriteTravelTogether) {
  StepOutbox outbox(1000);
  EXPECT_THAT(outbox.Take(0), IsEmpty());
  outbox.Add({.bytes = 11});
  ASSERT_EQ(SizeOf(outbox.Take(0)), 11);
  EXPECT_TRUE(outbox.writing());
  for (int i = 0; i < 3; ++i) {
    outbox.Add({.bytes = 22});
    EXPECT_THAT(outbox.Take(1), IsEmpty());
  }
  outbox.Sent();
  EXPECT_THAT(Written(outbox), ElementsAre(66));
}

TEST(StepOutboxTest, WorkerThatHasEnoughToDoGetsStepsTogether) {
  StepOutbox outbox(1000);
  const size_t enough = StepOutbox::kEnoughToDo;
  for (size_t i = 1; i < StepOutbox::kTogether; ++i) {
    outbox.Add({.bytes = 2});
    EXPECT_THAT(outbox.Take(enough), IsEmpty());
  }
  EXPECT_EQ(SizeOf(outbox.Take(enough - 1)), 2 * (StepOutbox::kTogether - 1));
  outbox.Sent();
  for (size_t i = 0; i < StepOutbox::kTogether; ++i) {
    outbox.Add({.bytes = 2});
  }
  EXPECT_THAT(outbox.Take(100), SizeIs(StepOutbox::kTogether));
}

TEST(StepOutboxTest, MessagesStayBelowTheLimit) {
  StepOutbox outbox(300);
  for (int i = 0; i < 4; ++i) {
    outbox.Add({.bytes = 100});
  }
  outbox.Add({.bytes = 210});
  // One that is too large for any other stands alone.
  outbox.Add({.bytes = 306});
  outbox.Add({.bytes = 7});
  EXPECT_THAT(Written(outbox), ElementsAre(300, 100, 210, 306, 7));
}

// Answers what it reads as it is told.
class Script {
 public:
  // An error ends the stream.
  using Write = std::function<void(const pb::StepsResponse&)>;
  using Reaction =
      std::function<absl::Status(const pb::StepsRequest&, const Write&)>;

  absl::Status Run(const pb::StepsRequest& request, const Write& write) {
    Reaction react;
    {
      absl::MutexLock lock(&mu_);
      react = react_;
    }
    return react(request, write);
  }
  void React(Reaction react) {
    absl::MutexLock lock(&mu_);
    react_ = std::move(react);
  }
  // Whether an error is a carrier's, not a worker's own word.
  std::atomic<bool> of_carrier = false;
  void Ended() {
    absl::MutexLock lock(&mu_);
    ++ended_;
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
  static absl::Status Answer(const pb::StepsRequest& request,
                             const Write& write) {
    pb::StepsResponse response;
    for (const auto& step : request.steps()) {
      auto& answer = *response.add_steps();
      answer.set_step(step.run().step());
      answer.mutable_run()->set_seconds(step.run().step());
    }
    write(response);
    return absl::OkStatus();
  }
  static absl::Status Ignore(const pb::StepsRequest&, const Write&) {
    return absl::OkStatus();
  }

 private:
  absl::Mutex mu_;
  Reaction react_ ABSL_GUARDED_BY(mu_) = &Answer;
  int ended_ ABSL_GUARDED_BY(mu_) = 0;
};

class GrpcWorker : public pb::Worker::Service {
 public:
  explicit GrpcWorker(Script* script) : script_(*script) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~GrpcWorker() override { Stop(); }
  int port() const { return port_; }
  int streams() const { return streams_; }
  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status Steps(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>* stream)
      override {
    ++streams_;
    pb::StepsRequest request;
    while (stream->Read(&request)) {
      const absl::Status status = script_.Run(
          request, [&](const auto& response) { stream->Write(response); });
      if (script_.of_carrier) {
        return {static_cast<grpc::StatusCode>(status.code()),
                std::string(status.message())};
      }
      if (!status.ok()) return ToGrpcStatus(status);
    }
    script_.Ended();
    return grpc::Status::OK;
  }
  grpc::Status LeaveGang(grpc::ServerContext*, const pb::LeaveGangRequest*,
                         google::protobuf::Empty*) override {
    return grpc::Status::OK;
  }

 private:
  Script& script_;
  int port_ = 0;
  std::atomic<int> streams_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// The same at a step socket.
class LocalWorker {
 public:
  LocalWorker(uint64_t incarnation, Script* script)
      : listener_(ListenLocally(StepSocketName(incarnation), 8).value()),
        acceptor_([this, script] { Accept(script); }) {}
  ~LocalWorker() { Stop(); }
  int streams() const { return streams_; }
  void Stop() {
    if (!acceptor_.joinable()) return;
    stopping_ = true;
    // Somebody has come: it looks.
    { const auto wake = ConnectLocally(listener_.name); }
    acceptor_.join();
    for (const auto& stream : open_) stream->link.Close();
    for (std::thread& each : threads_) each.join();
    listener_.socket = FileDescriptor();
  }

 private:
  struct Stream : Link::Handler {
    Stream(FileDescriptor socket, Script* told)
        : script(*told), link(std::move(socket)) {}
    void OnMessage(absl::string_view bytes, absl::string_view rest) override {
      pb::StepsRequest request;
      EXPECT_TRUE(absl::ConsumePrefix(&bytes, kStepsTag) &&
                  ParseInTwo(bytes, rest, &request));
      const absl::Status status =
          script.Run(request, [this](const auto& response) {
            link.Send({kStepsTag, response.SerializeAsString()});
          });
      if (!status.ok()) {
        google::rpc::Status end = ToRpcStatus(status);
        if (script.of_carrier) end.clear_details();
        link.Send({kEndTag, end.SerializeAsString()});
      }
      link.ReadOn();
    }
    void OnSent() override {}
    Script& script;
    Link link;
  };

  void Accept(Script* script) {
    while (!stopping_) {
      AwaitReadable({listener_.socket.get()}, std::chrono::hours(1));
      auto socket = AcceptLocal(listener_.socket);
      if (!socket.ok() || !socket->has_value()) continue;
      ++streams_;
      open_.push_back(std::make_shared<Stream>(**std::move(socket), script));
      threads_.emplace_back([stream = open_.back(), script] {
        stream->link.ReadOn();
        (void)stream->link.Run(*stream);
        script->Ended();
      });
    }
  }

  std::atomic<bool> stopping_ = false;
  std::atomic<int> streams_ = 0;
  LocalListener listener_;
  std::vector<std::shared_ptr<Stream>> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;  // last: uses the others
};

enum class Carrier { kGrpc, kLocal };

class StepStreamTest : public ::testing::TestWithParam<Carrier> {
 protected:
  StepStreamTest() : server_(&worker_) {
    if (GetParam() == Carrier::kLocal) local_.emplace(incarnation_, &worker_);
    client_ = ConnectToWorker("127.0.0.1:" + std::to_string(server_.port()));
    // gRPC 1.51 frees its queue for callbacks with the last channel that has
    // used it, and may do so twice where another one comes at that moment.
    static const auto* const kept = new std::shared_ptr<WorkerClient>(client_);
    static_cast<void>(kept);
  }
  ~StepStreamTest() override {
    client_.reset();
    // One that ended at once may have been seen by nobody.
    if (local_.has_value()) {
      EXPECT_EQ(server_.streams(), 0);
    }
  }
  void StopServer() {
    server_.Stop();
    if (local_.has_value()) local_->Stop();
  }

  void Add(uint64_t number, size_t bytes = 8,
           absl::Duration timeout = absl::Minutes(1), uint64_t epoch = 1) {
    {
      absl::MutexLock lock(&mu_);
      ++added_;
    }
    client_->Step(GangOf(epoch, incarnation_), StepOf(number, bytes), 9,
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
    client_->LeaveGang(GangOf(epoch, incarnation_), {},
                       [&](absl::Status status) {
                         absl::MutexLock lock(&mu);
                         left = std::move(status);
                       });
    absl::MutexLock lock(&mu);
    const auto done = [&] { return left.has_value(); };
    mu.Await(absl::Condition(&done));
    return *left;
  }

  const uint64_t incarnation_ = std::random_device()();
  Script worker_;
  GrpcWorker server_;
  std::optional<LocalWorker> local_;
  Cancellation cancellation_;
  std::shared_ptr<WorkerClient> client_;
  absl::Mutex mu_;
  size_t added_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::StatusOr<StepOutcome>> outcomes_ ABSL_GUARDED_BY(mu_);
};

MATCHER_P(RanFor, seconds, "") {
  return arg.ok() && arg->run.seconds == seconds;
}
INSTANTIATE_TEST_SUITE_P(Both, StepStreamTest,
                         ::testing::Values(Carrier::kGrpc, Carrier::kLocal),
                         [](const auto& info) {
                           return info.param == Carrier::kGrpc ? "grpc"
                                                               : "local";
                         });

const auto kGone = StatusIs(absl::StatusCode::kUnavailable, ::testing::_);
const auto kCancelled = StatusIs(absl::StatusCode::kCancelled, ::testing::_);

MATCHER(HasNoInfo, "") { return !GetErrorInfo(arg.status()).has_value(); }

TEST_P(StepStreamTest, AnswersComeInOrder) {
  for (const uint64_t number : {1, 2, 3}) {
    Add(number);
  }
  EXPECT_THAT(Outcomes(), ElementsAre(RanFor(1), RanFor(2), RanFor(3)));
  if (local_.has_value()) {
    EXPECT_EQ(local_->streams(), 1);
  }
}

TEST_P(StepStreamTest, ManyStepsArrive) {
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

TEST_P(StepStreamTest, LargeStepsArrive) {
  for (const uint64_t number : {1, 2, 3, 4}) {
    Add(number, 3 << 20);
  }
  EXPECT_THAT(Outcomes(),
              ElementsAre(RanFor(1), RanFor(2), RanFor(3), RanFor(4)));
}

TEST_P(StepStreamTest, StepThatFailsEndsNothingElse) {
  worker_.React([](const pb::StepsRequest& request, const auto& write) {
    pb::StepsResponse response;
    auto& answer = *response.add_steps();
    answer.set_step(request.steps(0).run().step());
    *answer.mutable_status() =
        ToRpcStatus(MakeError(absl::StatusCode::kNotFound, "boom",
                              {.reason = "BOOM", .metadata = {}}));
    write(response);
    return absl::OkStatus();
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(HasReason("BOOM")));
  worker_.React(&Script::Answer);
  Add(1);
  EXPECT_THAT(Outcomes()[1], RanFor(1));
}

TEST_P(StepStreamTest, ConnectionThatBreaksFailsAllAsUnavailable) {
  worker_.React(&Script::Ignore);
  Add(1);
  Add(2);
  StopServer();
  EXPECT_THAT(Outcomes(), ElementsAre(AllOf(kGone, HasNoInfo()),
                                      AllOf(kGone, HasNoInfo())));
  Add(3);
  EXPECT_THAT(Outcomes()[2], AllOf(kGone, HasNoInfo()));
}

TEST_P(StepStreamTest, WorkersOwnWordIsKept) {
  worker_.React([](const auto&, const auto&) {
    return MakeError(absl::StatusCode::kUnavailable, "it drains",
                     {.reason = "DRAINING", .metadata = {}});
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(HasReason("DRAINING")));
  worker_.React(&Script::Answer);
  Add(2);  // over another stream
  EXPECT_THAT(Outcomes()[1], RanFor(2));
}

TEST_P(StepStreamTest, StreamThatEndsWithoutAWordIsABrokenConnection) {
  worker_.of_carrier = true;
  worker_.React([](const auto&, const auto&) {
    return absl::InternalError("a frame was bad");
  });
  Add(1);
  EXPECT_THAT(Outcomes(),
              ElementsAre(AllOf(StatusIs(absl::StatusCode::kUnavailable,
                                         HasSubstr("a frame was bad")),
                                HasNoInfo())));
}

TEST_P(StepStreamTest, AnswerToAnotherStepIsAnError) {
  worker_.React([](const auto&, const auto& write) {
    pb::StepsResponse response;
    response.add_steps()->set_step(7);
    write(response);
    return absl::OkStatus();
  });
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(StatusIs(absl::StatusCode::kInternal,
                                               HasSubstr("oldest step"))));
}

TEST_P(StepStreamTest, CancellationEndsAll) {
  worker_.React(&Script::Ignore);
  Add(1);
  Add(2);
  cancellation_.Cancel();
  EXPECT_THAT(Outcomes(), ElementsAre(kCancelled, kCancelled));
  Add(3);
  EXPECT_THAT(Outcomes()[2], kCancelled);
}

TEST_P(StepStreamTest, StepThatTakesTooLongEndsThoseBehindIt) {
  // A step's time begins when the one before it is answered: here when the
  // third is there, which is never answered, and neither is the second.
  worker_.React([](const pb::StepsRequest& request, const auto& write) {
    for (const auto& step : request.steps()) {
      if (step.run().step() == 3) {
        pb::StepsRequest first;
        first.add_steps()->mutable_run()->set_step(1);
        return Script::Answer(first, write);
      }
    }
    return absl::OkStatus();
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

TEST_P(StepStreamTest, LeavingTheGangEndsItsStream) {
  Add(1);
  EXPECT_THAT(Outcomes(), ElementsAre(RanFor(1)));
  EXPECT_THAT(Leave(1), IsOk());
  worker_.AwaitEnds(1);
  worker_.React(&Script::Ignore);
  Add(2, 8, absl::Minutes(1), /*epoch=*/2);
  EXPECT_THAT(Leave(1), IsOk());  // an older one: the stream stays
  EXPECT_THAT(Leave(2), IsOk());
  EXPECT_THAT(Outcomes()[1], kCancelled);
}

TEST_P(StepStreamTest, NewerGangEndsTheOldOnesStream) {
  worker_.React([](const pb::StepsRequest& request, const auto& write) {
    return request.steps(0).run().gang().epoch() == 2
               ? Script::Answer(request, write)
               : absl::OkStatus();
  });
  Add(1);
  Add(1, 8, absl::Minutes(1), /*epoch=*/2);
  EXPECT_THAT(Outcomes(),
              ::testing::UnorderedElementsAre(kCancelled, RanFor(1)));
}

}  // namespace
}  // namespace shardplane
