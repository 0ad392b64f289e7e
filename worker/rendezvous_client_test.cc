#include "worker/rendezvous_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "proto/grpc_status.h"
#include "tests/matchers.h"
#include "worker/fake_gang_store.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using absl::StatusCode;
using google::protobuf::Empty;
using grpc::ServerContext;
using std::chrono::milliseconds;
using testing::ElementsAre;

// The service over an in-memory store; knows one epoch.
class FakeRendezvous : public pb::Rendezvous::Service {
 public:
  explicit FakeRendezvous(uint64_t epoch) : epoch_(epoch) {}

  absl::Notification waiting;  // a StoreGet has come

  grpc::Status StoreSet(ServerContext*, const pb::StoreSetRequest* request,
                        Empty*) override {
    return Fenced(request->member(),
                  [&] { return store_.Set(request->key(), request->value()); });
  }
  grpc::Status StoreGet(ServerContext* context,
                        const pb::StoreGetRequest* request,
                        pb::StoreGetResponse* response) override {
    return Fenced(request->member(), [&]() -> absl::Status {
      if (!waiting.HasBeenNotified()) waiting.Notify();
      const std::vector<std::string> keys(request->keys().begin(),
                                          request->keys().end());
      const milliseconds step{5};
      milliseconds left{request->timeout_ms()};
      while (!context->IsCancelled()) {
        auto values = store_.Get(keys, step);
        left -= step;
        if (absl::IsDeadlineExceeded(values.status()) && left.count() > 0) {
          continue;
        }
        if (!values.ok()) return values.status();
        for (const std::string& value : *values) response->add_values(value);
        return absl::OkStatus();
      }
      return absl::CancelledError("the client went away");
    });
  }
  grpc::Status StoreAdd(ServerContext*, const pb::StoreAddRequest* request,
                        pb::StoreAddResponse* response) override {
    return Fenced(request->member(), [&] {
      auto sum = store_.Add(request->key(), request->amount());
      if (sum.ok()) response->set_value(*sum);
      return sum.status();
    });
  }
  grpc::Status StoreCompareSet(ServerContext*,
                               const pb::StoreCompareSetRequest* request,
                               pb::StoreGetResponse* response) override {
    return Fenced(request->member(), [&] {
      auto value = store_.CompareSet(request->key(), request->expected(),
                                     request->desired());
      if (value.ok()) response->add_values(*value);
      return value.status();
    });
  }
  grpc::Status StoreDelete(ServerContext*,
                           const pb::StoreDeleteRequest* request,
                           pb::StoreCheckResponse* response) override {
    return Fenced(request->member(), [&] {
      auto found = store_.Delete(request->key());
      if (found.ok()) response->set_found(*found);
      return found.status();
    });
  }
  grpc::Status StoreCheck(ServerContext*, const pb::StoreCheckRequest* request,
                          pb::StoreCheckResponse* response) override {
    return Fenced(request->member(), [&] {
      auto found =
          store_.Check({request->keys().begin(), request->keys().end()});
      if (found.ok()) response->set_found(*found);
      response->set_total_keys(store_.NumKeys().value_or(-1));
      return found.status();
    });
  }

 private:
  template <typename Function>
  grpc::Status Fenced(const pb::GangMember& member, Function function) {
    if (member.epoch() != epoch_ || member.rank() != 1) {
      return ToGrpcStatus(absl::AbortedError("another epoch"));
    }
    return ToGrpcStatus(function());
  }

  const uint64_t epoch_;
  FakeGangStore store_;
};

class RendezvousClientTest : public testing::Test {
 protected:
  RendezvousClientTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    client_ = MakeClient(5);
  }
  ~RendezvousClientTest() override { server_->Shutdown(); }

  std::unique_ptr<RendezvousClient> MakeClient(uint64_t epoch) {
    pb::GangMember member;
    member.set_epoch(epoch);
    member.set_rank(1);
    return std::make_unique<RendezvousClient>(server_->InProcessChannel({}),
                                              std::move(member));
  }

  FakeRendezvous service_{5};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<RendezvousClient> client_;
};

TEST_F(RendezvousClientTest, SetGetAddAndTheRest) {
  const std::string binary("\0\xff", 2);
  EXPECT_THAT(client_->Set("a", binary), IsOk());
  EXPECT_THAT(client_->Set("b", ""), IsOk());
  const auto values = client_->Get({"b", "a"}, milliseconds(1000));
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(*values, ElementsAre("", binary));
  EXPECT_EQ(client_->Add("n", 3).value(), 3);
  EXPECT_EQ(client_->Add("n", 4).value(), 7);
  EXPECT_EQ(client_->CompareSet("c", "", "first").value(), "first");
  EXPECT_EQ(client_->CompareSet("c", "other", "second").value(), "first");
  EXPECT_TRUE(client_->Check({"a", "c"}).value());
  EXPECT_FALSE(client_->Check({"a", "z"}).value());
  EXPECT_EQ(client_->NumKeys().value(), 4);
  EXPECT_TRUE(client_->Delete("a").value());
  EXPECT_FALSE(client_->Delete("a").value());
}

TEST_F(RendezvousClientTest, KeyThatDoesNotComeIsADeadline) {
  EXPECT_THAT(client_->Get({"never"}, milliseconds(20)),
              StatusIs(StatusCode::kDeadlineExceeded, testing::_));
}

TEST_F(RendezvousClientTest, WaitsForAKeyThatComes) {
  std::thread other([&] {
    service_.waiting.WaitForNotification();
    EXPECT_THAT(client_->Set("late", "v"), IsOk());
  });
  const auto values = client_->Get({"late"}, milliseconds(20'000));
  other.join();
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(*values, ElementsAre("v"));
}

TEST_F(RendezvousClientTest, AnotherEpochIsAborted) {
  EXPECT_THAT(MakeClient(4)->Set("a", "b"),
              StatusIs(StatusCode::kAborted, testing::_));
}

TEST_F(RendezvousClientTest, CancelEndsAWaitAndEverythingAfter) {
  std::thread other([&] {
    service_.waiting.WaitForNotification();
    client_->Cancel();
  });
  EXPECT_THAT(client_->Get({"never"}, milliseconds(20'000)),
              StatusIs(StatusCode::kCancelled, testing::_));
  other.join();
  EXPECT_THAT(client_->Set("a", "b"),
              StatusIs(StatusCode::kCancelled, testing::_));
}

}  // namespace
}  // namespace shardplane
