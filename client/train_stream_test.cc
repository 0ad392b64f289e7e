#include "client/train_stream.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "client/fake_coordinator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Ne;
using ::testing::SizeIs;

class TrainStreamTest : public ::testing::Test {
 protected:
  TrainStreamTest() : client_(*Client::Connect(fake_.address())) {}

  void Open(const TrainStreamOptions& options = {}) {
    stream_ = client_->Train(options);
  }
  // The fake neither reads nor answers until it is released.
  void OpenHeld(const TrainStreamOptions& options = {}) {
    fake_.Hold();
    Open(options);
  }
  // A step whose input has that many bytes.
  static pb::StepRequest StepOf(uint64_t number, size_t bytes = 10) {
    pb::StepRequest request;
    request.set_step(number);
    request.mutable_train()->add_inputs()->set_inline_(
        std::string(bytes, '\1'));
    return request;
  }
  void Write(uint64_t first, uint64_t last) {
    for (uint64_t n = first; n <= last; ++n) {
      ASSERT_THAT(stream_->Write(StepOf(n)), IsOk());
    }
  }
  // A step that stays on its way until the fake reads it.
  void WriteLarge(uint64_t number) {
    ASSERT_THAT(stream_->Write(StepOf(number, size_t{8} << 20)), IsOk());
  }
  // The number of the next result; 0: the end.
  absl::StatusOr<uint64_t> Read() {
    const auto result = stream_->Read();
    if (!result.ok()) {
      return result.status();
    }
    return result->has_value() ? (*result)->number() : 0;
  }
  void ExpectResults(uint64_t first, uint64_t last) {
    for (uint64_t n = first; n <= last; ++n) {
      ASSERT_THAT(Read(), IsOkAndHolds(Eq(n)));
    }
  }

  FakeCoordinator fake_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<TrainStream> stream_;
};

TEST_F(TrainStreamTest, ResultsComeInTheOrderOfTheSteps) {
  Open();
  Write(1, 100);
  EXPECT_THAT(stream_->Finish(), IsOk());
  ExpectResults(1, 100);
  EXPECT_THAT(Read(), IsOkAndHolds(Eq(0u)));
  EXPECT_THAT(Read(), IsOkAndHolds(Eq(0u)));
}

TEST_F(TrainStreamTest, ResultsAreReadWhileStepsAreWritten) {
  constexpr uint64_t kAhead = 4;
  Open();
  Write(1, kAhead);
  for (uint64_t n = 1; n <= 50; ++n) {
    ExpectResults(n, n);
    Write(n + kAhead, n + kAhead);
  }
}

TEST_F(TrainStreamTest, OneThreadWritesAndAnotherReads) {
  Open();
  std::thread writer([this] {
    Write(1, 500);
    EXPECT_THAT(stream_->Finish(), IsOk());
  });
  ExpectResults(1, 500);
  EXPECT_THAT(Read(), IsOkAndHolds(Eq(0u)));
  writer.join();
}

TEST_F(TrainStreamTest, NoStepAtAll) {
  Open();
  EXPECT_THAT(stream_->Finish(), IsOk());
  EXPECT_THAT(Read(), IsOkAndHolds(Eq(0u)));
  EXPECT_THAT(stream_->Finish(), IsOk());
}

TEST_F(TrainStreamTest, CollectsWhileAMessageIsOnItsWay) {
  OpenHeld();
  WriteLarge(1);
  Write(2, 100);
  fake_.Release();
  EXPECT_THAT(stream_->Finish(), IsOk());
  EXPECT_THAT(fake_.train_messages(), ElementsAre(1, 99));
  ExpectResults(1, 100);
}

TEST_F(TrainStreamTest, CollectsWhileMoreStepsAreUnderWay) {
  OpenHeld();
  Write(1, 16);
  fake_.Release();
  ExpectResults(1, 16);
  // 1, 1, 2, 4 and 8 steps; or fewer messages, where one was still on its way.
  EXPECT_THAT(fake_.train_messages(), SizeIs(Le(5)));
}

TEST_F(TrainStreamTest, ResultsLetCollectedStepsLeave) {
  OpenHeld();
  Write(1, 7);  // 5, 6 and 7 stay, if no message before was late
  fake_.Release();
  ExpectResults(1, 7);
}

TEST_F(TrainStreamTest, MessagesLeaveThoughNobodyWaits) {
  OpenHeld();
  WriteLarge(1);
  WriteLarge(2);  // while the first is on its way
  fake_.Release();
  fake_.WaitForTrainMessages(2);
  ExpectResults(1, 2);
}

TEST_F(TrainStreamTest, MessagesAreBounded) {
  const int64_t bytes = StepOf(100, 1000).ByteSizeLong();
  OpenHeld({.max_message_bytes = static_cast<size_t>(3 * bytes)});
  WriteLarge(100);
  for (uint64_t n = 101; n <= 108; ++n) {
    ASSERT_THAT(stream_->Write(StepOf(n, 1000)), IsOk());
  }
  fake_.Release();
  EXPECT_THAT(stream_->Finish(), IsOk());
  EXPECT_THAT(fake_.train_messages(), ElementsAre(1, 3, 3, 2));
}

TEST_F(TrainStreamTest, AStepThatFailsEndsTheStream) {
  fake_.EndTrainAt(3, ToGrpcStatus(MakeError(
                          absl::StatusCode::kInvalidArgument, "bad input",
                          {.reason = "FAKE", .metadata = {{"step", "3"}}})));
  const auto fails =
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, "bad input"),
            HasReason("FAKE"), HasMetadata("step", "3"));
  OpenHeld();
  Write(1, 4);
  fake_.Release();
  ExpectResults(1, 2);
  EXPECT_THAT(Read(), fails);
  EXPECT_THAT(Read(), fails);
  EXPECT_THAT(stream_->Write(StepOf(5)), fails);
  EXPECT_THAT(stream_->Finish(), fails);
}

TEST_F(TrainStreamTest, ResultsBeforeAFailureStayToBeRead) {
  fake_.EndTrainAt(3, grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone"));
  OpenHeld();
  Write(1, 4);
  fake_.Release();
  EXPECT_THAT(stream_->Finish(),
              StatusIs(absl::StatusCode::kUnavailable, "gone"));
  ExpectResults(1, 2);
  EXPECT_THAT(Read(), StatusIs(absl::StatusCode::kUnavailable, "gone"));
}

TEST_F(TrainStreamTest, AStreamThatIsRefusedSaysWhy) {
  fake_.FailNext(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such thing"));
  Open();
  EXPECT_THAT(Read(), StatusIs(absl::StatusCode::kNotFound, "no such thing"));
}

TEST_F(TrainStreamTest, TheEndBeforeAllIsAnsweredIsAnError) {
  fake_.EndTrainAt(2, grpc::Status::OK);
  OpenHeld();
  Write(1, 3);
  fake_.Release();
  ExpectResults(1, 1);
  EXPECT_THAT(Read(),
              AllOf(StatusIs(absl::StatusCode::kInternal,
                             "train: expected 2 more results, got: the end of "
                             "the stream"),
                    HasReason("STREAM_INCOMPLETE")));
}

TEST_F(TrainStreamTest, NoStepAfterFinish) {
  Open();
  ASSERT_THAT(stream_->Finish(), IsOk());
  EXPECT_THAT(stream_->Write(StepOf(1)),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("got: another")),
                    HasReason("STREAM_FINISHED")));
}

TEST_F(TrainStreamTest, ASilentCoordinatorIsGivenUp) {
  OpenHeld({.idle_limit = absl::Milliseconds(50)});
  Write(1, 2);
  fake_.WaitUntilHeld();
  EXPECT_THAT(Read(), AllOf(StatusIs(absl::StatusCode::kDeadlineExceeded,
                                     "train: expected the next of 2 results "
                                     "within 50ms, got: nothing"),
                            HasReason("STREAM_IDLE")));
  fake_.WaitUntilCancelled();
}

TEST_F(TrainStreamTest, ASilentCoordinatorIsGivenUpInFinish) {
  OpenHeld({.idle_limit = absl::Milliseconds(50)});
  EXPECT_THAT(stream_->Finish(), HasReason("STREAM_IDLE"));
}

TEST_F(TrainStreamTest, GoingAwayEndsTheCall) {
  OpenHeld();
  WriteLarge(1);
  Write(2, 10);
  fake_.WaitUntilHeld();
  stream_.reset();
  fake_.WaitUntilCancelled();
}

TEST_F(TrainStreamTest, AnyThreadMayWrite) {
  Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] { Write(1, 200); });
  }
  for (int i = 0; i < 800; ++i) {
    ASSERT_THAT(Read(), IsOkAndHolds(Ne(0u)));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(stream_->Finish(), IsOk());
  int steps = 0;
  for (const int message : fake_.train_messages()) {
    steps += message;
  }
  EXPECT_EQ(steps, 800);
}

TEST_F(TrainStreamTest, StreamsOfOneClientAreApart) {
  Open();
  const std::unique_ptr<TrainStream> other = client_->Train();
  fake_.EndTrainAt(7, grpc::Status(grpc::StatusCode::ABORTED, "turn"));
  ASSERT_THAT(other->Write(StepOf(7)), IsOk());
  EXPECT_THAT(other->Read(), StatusIs(absl::StatusCode::kAborted, "turn"));
  Write(1, 3);
  ExpectResults(1, 3);
}

}  // namespace
}  // namespace shardplane
