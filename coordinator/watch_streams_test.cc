// Watches over a real connection.
#include "coordinator/watch_streams.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/coordinator_server.h"
#include "coordinator/fake_worker.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WatchTest : public ::testing::Test {
 protected:
  void Start(absl::Duration slow = absl::Seconds(30),
             absl::Duration bookmark = absl::Hours(1)) {
    CoordinatorServer::Options options;
    options.coordinator = cluster_.options();
    options.metrics = &metrics_;
    options.tick = absl::Milliseconds(5);
    options.watches.slow = slow;
    options.watches.bookmark = bookmark;
    server_ = *CoordinatorServer::Start(std::move(options));
    stub_ = pb::ShardingCoordinator::NewStub(grpc::CreateChannel(
        server_->address(), grpc::InsecureChannelCredentials()));
  }
  Coordinator& coordinator() { return server_->coordinator(); }
  void Register(const std::string& id, const std::string& device = "cpu") {
    ASSERT_THAT(coordinator().RegisterWorker({.id = WorkerId{id},
                                              .incarnation = Incarnation{7},
                                              .address = id,
                                              .device = device}),
                IsOk());
  }

  // A call, event by event.
  struct Reading {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<pb::WatchResponse>> reader;
    pb::WatchResponse message;
    int next = 0;

    std::optional<pb::WatchEvent> Next() {
      while (next == message.events_size()) {
        if (!reader->Read(&message)) return std::nullopt;
        next = 0;
      }
      return message.events(next++);
    }
    absl::Status Finish() { return FromGrpcStatus(reader->Finish()); }
  };
  std::unique_ptr<Reading> Watch(const std::vector<std::string>& collections,
                                 const std::string& version = "",
                                 const std::string& name = "") {
    pb::WatchRequest request;
    for (const std::string& each : collections) request.add_collections(each);
    request.set_resume_version(version);
    request.set_name(name);
    auto reading = std::make_unique<Reading>();
    reading->context.set_deadline(
        absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    reading->reader = stub_->Watch(&reading->context, request);
    return reading;
  }
  // "ADDED w0 READY"; "BOOKMARK"; "" at the end.
  static std::string Text(const std::optional<pb::WatchEvent>& event) {
    if (!event.has_value()) return "";
    std::string text = pb::WatchEvent::Type_Name(event->type()).substr(5);
    if (event->has_worker()) {
      absl::StrAppend(
          &text, " ", event->worker().name().substr(8), " ",
          pb::WorkerNode::State_Name(event->worker().state()).substr(6));
    }
    if (event->has_event())
      absl::StrAppend(&text, " ", event->event().reason());
    return text;
  }

  Metrics metrics_{{.component = "coordinator"}};
  FakeCluster cluster_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<pb::ShardingCoordinator::Stub> stub_;
};

TEST_F(WatchTest, WhatThereIsThenWhatChanges) {
  Start();
  Register("w0");
  const auto reading = Watch({"workers"});
  EXPECT_EQ(Text(reading->Next()), "ADDED w0 READY");
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
  Register("w1");
  EXPECT_EQ(Text(reading->Next()), "ADDED w1 READY");
  ASSERT_THAT(coordinator().DrainWorker({"w0"}, false), IsOk());
  EXPECT_EQ(Text(reading->Next()), "MODIFIED w0 DRAINING");
}

TEST_F(WatchTest, GoesOnFromAVersion) {
  Start();
  Register("w0");
  std::string version;
  {
    const auto reading = Watch({"workers"});
    reading->Next();
    version = reading->Next()->version();
    reading->context.TryCancel();
    reading->Finish().IgnoreError();
  }
  Register("w1");
  ASSERT_THAT(coordinator().DrainWorker({"w0"}, false), IsOk());
  const auto reading = Watch({"workers"}, version);
  EXPECT_EQ(Text(reading->Next()), "ADDED w1 READY");
  EXPECT_EQ(Text(reading->Next()), "MODIFIED w0 DRAINING");
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
}

TEST_F(WatchTest, OneResourceAndEvents) {
  Start();
  Register("w0");
  Register("w1");
  const auto one = Watch({}, "", "workers/w1");
  EXPECT_EQ(Text(one->Next()), "ADDED w1 READY");
  EXPECT_EQ(Text(one->Next()), "BOOKMARK");
  const auto events = Watch({"events"});
  EXPECT_EQ(Text(events->Next()), "ADDED WORKER_REGISTERED");
}

TEST_F(WatchTest, AQuietStreamGetsBookmarks) {
  Start(absl::Seconds(30), /*bookmark=*/absl::Milliseconds(1));
  const auto reading = Watch({"workers"});
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
}

TEST_F(WatchTest, RefusesWhatItCannotFollow) {
  Start();
  EXPECT_EQ(Text(Watch({"dogs"})->Next()), "");
  const auto dogs = Watch({"workers", "dogs"});
  EXPECT_FALSE(dogs->Next().has_value());
  EXPECT_THAT(dogs->Finish(), AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("\"dogs\"")),
                                    HasMetadata("field", "collections[1]")));
  const auto nonsense = Watch({}, "yesterday");
  nonsense->Next();
  EXPECT_THAT(nonsense->Finish(), HasMetadata("field", "resume_version"));
  // Of a coordinator that was here before.
  const auto other = Watch({}, "12345-6");
  other->Next();
  EXPECT_THAT(other->Finish(),
              StatusIs(absl::StatusCode::kOutOfRange, testing::_));
}

TEST_F(WatchTest, DeletionsThatAreForgottenAreOutOfRange) {
  Start();
  Register("w0");
  const auto before = Watch({"workers"});
  before->Next();
  const std::string version = before->Next()->version();
  Bulletin& bulletin = coordinator().bulletin();
  for (size_t i = 0; i <= ChangeLog::kKeptDeletions; ++i) {
    const OperationId id{absl::StrCat("o", i)};
    bulletin.Show(OperationRecord{.id = id});
    bulletin.Hide(ResourceName(id));
  }
  const auto late = Watch({"workers"}, version);
  late->Next();
  EXPECT_THAT(late->Finish(), HasReason("WATCH_VERSION_TOO_OLD"));
  // "oldest" is one to go on from.
  const auto again = Watch({"workers"}, version);
  again->Next();
  const absl::Status status = again->Finish();
  const auto info = GetErrorInfo(status);
  ASSERT_TRUE(info.has_value());
  const auto oldest = Watch({"workers"}, info->metadata.at("oldest"));
  EXPECT_EQ(Text(oldest->Next()), "BOOKMARK");
}

// It has a place in the log, and the log has each resource once: however much
// changes while it takes nothing, it is sent what there is when it does.
TEST_F(WatchTest, AReaderThatFallsBehindGetsTheLastState) {
  Start();
  const auto reading = Watch({"operations"});
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
  constexpr int kChanges = 3000;
  const std::string large(4096, 'x');
  for (int i = 0; i < kChanges; ++i) {
    coordinator().bulletin().Show(
        OperationRecord{.id = {"o"},
                        .progress = {.phase = absl::StrCat(i, large)},
                        .revision = static_cast<uint64_t>(i)});
  }
  int seen = 0;
  std::string last;
  const std::string wanted = absl::StrCat(kChanges - 1, large);
  while (last != wanted) {
    const auto event = reading->Next();
    ASSERT_TRUE(event.has_value());
    last = event->operation().phase();
    ++seen;
  }
  EXPECT_LT(seen, kChanges) << "states that were over were left out";
}

// Some hundred operations of 20 kB each: more than a connection holds.
TEST_F(WatchTest, AReaderThatTakesNothingIsClosedAndGoesOn) {
  Start(/*slow=*/absl::Milliseconds(500));
  const auto reading = Watch({"operations"});
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
  const std::string large(20'000, 'x');
  constexpr int64_t kOperations = 300;
  absl::btree_map<std::string, int64_t> last;  // revision, by name
  const auto show = [&](int64_t revision) {
    const OperationId id{absl::StrCat("o", revision % kOperations)};
    last[ResourceName(id)] = revision;
    coordinator().bulletin().Show(
        OperationRecord{.id = id,
                        .progress = {.phase = large, .bytes_done = revision},
                        .revision = static_cast<uint64_t>(revision)});
  };
  int64_t revision = 1;
  for (const absl::Time end = absl::Now() + absl::Seconds(3);
       absl::Now() < end;) {
    show(revision++);
  }
  absl::btree_map<std::string, int64_t> seen;
  for (auto event = reading->Next(); event; event = reading->Next()) {
    seen[event->operation().name()] = event->operation().bytes_done();
  }
  const absl::Status status = reading->Finish();
  ASSERT_THAT(status, AllOf(StatusIs(absl::StatusCode::kAborted, testing::_),
                            HasReason("WATCH_TOO_SLOW")));
  show(revision);
  const auto again = Watch({"operations"},
                           GetErrorInfo(status)->metadata.at("resume_version"));
  seen.erase("");  // bookmarks
  while (seen != last) {
    const auto event = again->Next();
    ASSERT_TRUE(event.has_value()) << again->Finish();
    ASSERT_NE(Text(event), "BOOKMARK") << "all has been sent";
    seen[event->operation().name()] = event->operation().bytes_done();
  }
}

// A message is small enough for a reader that has not asked for more.
TEST_F(WatchTest, WhatIsLargeGoesInSeveralMessages) {
  Start();
  const std::string large(100'000, 'x');
  for (int i = 0; i < 100; ++i) {
    coordinator().bulletin().Show(OperationRecord{
        .id = {absl::StrCat("o", i)}, .progress = {.phase = large}});
  }
  const auto reading = Watch({"operations"});
  int seen = 0;
  for (auto event = reading->Next(); Text(event) != "BOOKMARK";
       event = reading->Next()) {
    ASSERT_TRUE(event.has_value()) << reading->Finish();
    ++seen;
    EXPECT_LT(reading->message.ByteSizeLong(), 2 << 20);
  }
  EXPECT_EQ(seen, 100);
}

TEST_F(WatchTest, EndsWhenTheServerDoes) {
  Start();
  const auto reading = Watch({"workers"});
  EXPECT_EQ(Text(reading->Next()), "BOOKMARK");
  server_->Drain(absl::Seconds(10));
  EXPECT_EQ(Text(reading->Next()), "");
  EXPECT_THAT(reading->Finish(), HasReason("SHUTTING_DOWN"));
}

TEST_F(WatchTest, ManyWatchAtOnce) {
  Start();
  std::vector<std::unique_ptr<Reading>> readings;
  for (int i = 0; i < 200; ++i) readings.push_back(Watch({"workers"}));
  Register("w0");
  for (const auto& reading : readings) {
    std::string text = Text(reading->Next());
    if (text == "BOOKMARK") text = Text(reading->Next());
    EXPECT_EQ(text, "ADDED w0 READY");
  }
}

}  // namespace
}  // namespace shardplane
