// A watch that goes on by itself, against a coordinator of the test's.
#include "client/watch_stream.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/client.h"
#include "client/error_info.h"
#include "client/fake_cluster.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::_;
using ::testing::ElementsAre;

pb::WatchResponse Message(const std::vector<std::string>& versions,
                          pb::WatchEvent::Type type) {
  pb::WatchResponse message;
  for (const std::string& version : versions) {
    pb::WatchEvent* event = message.add_events();
    event->set_type(type);
    event->set_version(version);
  }
  return message;
}
pb::WatchResponse Added(const std::vector<std::string>& versions) {
  return Message(versions, pb::WatchEvent::TYPE_ADDED);
}
pb::WatchResponse Bookmark(const std::string& version) {
  return Message({version}, pb::WatchEvent::TYPE_BOOKMARK);
}

grpc::Status Error(absl::StatusCode code, const std::string& reason,
                   const std::string& version = "") {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  if (!version.empty()) {
    (*info.mutable_metadata())["resume_version"] = version;
  }
  return ToGrpcStatus(ClientError(code, info, "the fake says no"));
}

class WatchStreamTest : public ::testing::Test {
 protected:
  void Start(WatchStreamOptions options = {}) {
    auto client =
        Client::Connect(fake_.address(), {.sleep = [](absl::Duration) {}});
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
    pb::WatchRequest request;
    request.add_collections("workers");
    watch_ = client_->Watch(std::move(request), std::move(options));
  }
  // The versions of the next events.
  std::vector<std::string> Take(int count) {
    std::vector<std::string> versions;
    for (int i = 0; i < count; ++i) {
      const auto event = watch_->Next();
      versions.push_back(event.ok() ? event->version()
                                    : event.status().ToString());
    }
    return versions;
  }
  std::vector<std::string> ResumedFrom() const {
    std::vector<std::string> versions;
    for (const pb::WatchRequest& request : fake_.watches()) {
      EXPECT_THAT(request.collections(), ElementsAre("workers"));
      versions.push_back(request.resume_version());
    }
    return versions;
  }

  FakeCluster fake_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<WatchStream> watch_;
};

TEST_F(WatchStreamTest, EventsComeInOrder) {
  fake_.AddWatch(
      {.messages = {Added({"1", "2"}), Bookmark("3")}, .stays = true});
  Start();
  EXPECT_THAT(Take(3), ElementsAre("1", "2", "3"));
}

TEST_F(WatchStreamTest, ALostConnectionGoesOnFromTheLastVersion) {
  fake_.AddWatch({.messages = {Added({"1"}), Bookmark("2"), Added({"3"})},
                  .end = Error(absl::StatusCode::kUnavailable, "GONE")});
  fake_.AddWatch({.messages = {Added({"4"})}, .stays = true});
  Start();
  EXPECT_THAT(Take(4), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(ResumedFrom(), ElementsAre("", "3"));
}

TEST_F(WatchStreamTest, AnEndWithoutAnErrorGoesOnToo) {
  fake_.AddWatch({.messages = {Bookmark("2")}});
  fake_.AddWatch({.messages = {Added({"3"})}, .stays = true});
  Start();
  EXPECT_THAT(Take(2), ElementsAre("2", "3"));
  EXPECT_THAT(ResumedFrom(), ElementsAre("", "2"));
}

// A part of what there is is not all that there is.
TEST_F(WatchStreamTest, BeforeTheBookmarkItStartsAnew) {
  fake_.AddWatch({.messages = {Added({"1"})},
                  .end = Error(absl::StatusCode::kUnavailable, "GONE")});
  fake_.AddWatch({.messages = {Added({"1"}), Bookmark("2")}, .stays = true});
  Start();
  EXPECT_THAT(Take(3), ElementsAre("1", "1", "2"));
  EXPECT_THAT(ResumedFrom(), ElementsAre("", ""));
}

TEST_F(WatchStreamTest, AReaderThatWasTooSlowGoesOnWhereTheCoordinatorSays) {
  fake_.AddWatch(
      {.messages = {Bookmark("2"), Added({"3"})},
       .end = Error(absl::StatusCode::kAborted, "WATCH_TOO_SLOW", "7")});
  fake_.AddWatch({.messages = {Added({"8"})}, .stays = true});
  Start();
  EXPECT_THAT(Take(3), ElementsAre("2", "3", "8"));
  EXPECT_THAT(ResumedFrom(), ElementsAre("", "7"));
}

TEST_F(WatchStreamTest, AVersionThatIsForgottenStartsAnew) {
  fake_.AddWatch({.messages = {Bookmark("2")},
                  .end = Error(absl::StatusCode::kUnavailable, "GONE")});
  fake_.AddWatch({.end = Error(absl::StatusCode::kOutOfRange, "TOO_OLD")});
  fake_.AddWatch({.messages = {Added({"9"})}, .stays = true});
  Start();
  EXPECT_THAT(Take(1), ElementsAre("2"));
  EXPECT_THAT(watch_->Next(), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_THAT(Take(1), ElementsAre("9"));
  EXPECT_THAT(ResumedFrom(), ElementsAre("", "2", ""));
}

TEST_F(WatchStreamTest, OtherErrorsEndIt) {
  fake_.AddWatch({.end = Error(absl::StatusCode::kAborted, "OTHER")});
  Start();
  const auto event = watch_->Next();
  EXPECT_THAT(event, StatusIs(absl::StatusCode::kAborted, _));
  EXPECT_THAT(event, HasReason("OTHER"));
}

TEST_F(WatchStreamTest, ACoordinatorThatStaysAwayIsUnavailable) {
  fake_.AddWatch({.messages = {Bookmark("2")},
                  .end = Error(absl::StatusCode::kUnavailable, "GONE")});
  Start({.backoff = {.retry_for = absl::ZeroDuration()}});
  EXPECT_THAT(Take(1), ElementsAre("2"));
  EXPECT_THAT(watch_->Next(), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_THAT(ResumedFrom(), ElementsAre(""));
}

TEST_F(WatchStreamTest, ItEndsAtItsTime) {
  fake_.AddWatch({.messages = {Bookmark("2")}, .stays = true});
  Start({.until = absl::Now() + absl::Milliseconds(300)});
  EXPECT_THAT(Take(1), ElementsAre("2"));
  EXPECT_THAT(watch_->Next(), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST_F(WatchStreamTest, CancelEndsWhoWaits) {
  fake_.AddWatch({.messages = {Bookmark("2")}, .stays = true});
  Start();
  EXPECT_THAT(Take(1), ElementsAre("2"));
  std::thread other([this] { watch_->Cancel(); });
  EXPECT_THAT(watch_->Next(), StatusIs(absl::StatusCode::kCancelled, _));
  other.join();
  EXPECT_THAT(watch_->Next(), StatusIs(absl::StatusCode::kCancelled, _));
}

}  // namespace
}  // namespace shardplane
