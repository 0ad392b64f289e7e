#include "worker/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "proto/grpc_status.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(20);

// Answers as the test says and keeps what came.
class FakeRegistry : public pb::WorkerRegistry::Service {
 public:
  grpc::Status RegisterWorker(grpc::ServerContext*,
                              const pb::RegisterWorkerRequest* request,
                              pb::RegisterWorkerResponse* response) override {
    absl::MutexLock lock(&mutex_);
    registrations_.push_back(*request);
    response->set_lease_ms(60);
    return ToGrpcStatus(register_status_);
  }
  grpc::Status RenewLease(grpc::ServerContext*,
                          const pb::RenewLeaseRequest* request,
                          pb::RenewLeaseResponse* response) override {
    absl::MutexLock lock(&mutex_);
    renewals_.push_back(*request);
    response->set_lease_ms(60);
    const absl::Status status = renew_status_;
    if (absl::IsNotFound(status)) renew_status_ = absl::OkStatus();
    return ToGrpcStatus(status);
  }

  void Answer(absl::Status to_register, absl::Status to_renew) {
    absl::MutexLock lock(&mutex_);
    register_status_ = std::move(to_register);
    renew_status_ = std::move(to_renew);
  }
  // Waits until `reached` holds of the registrations and renewals so far.
  using Reached =
      std::function<bool(const std::vector<pb::RegisterWorkerRequest>&,
                         const std::vector<pb::RenewLeaseRequest>&)>;
  bool Wait(const Reached& reached) {
    absl::MutexLock lock(&mutex_);
    const auto holds = [&] {
      mutex_.AssertHeld();
      return reached(registrations_, renewals_);
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&holds), kLong);
  }

 private:
  absl::Mutex mutex_;
  absl::Status register_status_ ABSL_GUARDED_BY(mutex_);
  absl::Status renew_status_ ABSL_GUARDED_BY(mutex_);
  std::vector<pb::RegisterWorkerRequest> registrations_ ABSL_GUARDED_BY(mutex_);
  std::vector<pb::RenewLeaseRequest> renewals_ ABSL_GUARDED_BY(mutex_);
};

class MembershipTest : public testing::Test {
 protected:
  MembershipTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&registry_);
    server_ = builder.BuildAndStart();
  }
  ~MembershipTest() override {
    membership_.reset();
    server_->Shutdown();
  }

  void Start() {
    membership_ = Membership::Start({
        .channel = server_->InProcessChannel({}),
        .worker_id = "w1",
        .incarnation = 7,
        .address = "127.0.0.1:1",
        .http_address = "127.0.0.1:2",
        .device = "cpu",
        .on_refused =
            [this](const absl::Status& status) {
              refusal_ = status;
              refused_.Notify();
            },
        .log = {},
    });
  }

  FakeRegistry registry_;
  std::unique_ptr<grpc::Server> server_;
  absl::Status refusal_;
  absl::Notification refused_;
  std::unique_ptr<Membership> membership_;
};

TEST_F(MembershipTest, RegistersAndRenews) {
  Start();
  EXPECT_THAT(membership_->WaitRegistered(kLong), IsOk());
  EXPECT_TRUE(registry_.Wait([](const auto& registrations,
                                const auto& renewals) {
    return registrations.size() == 1 && registrations[0].worker_id() == "w1" &&
           registrations[0].address() == "127.0.0.1:1" &&
           renewals.size() >= 2 && renewals[1].incarnation() == 7;
  }));
  EXPECT_THAT(membership_->State(), IsOk());
}

TEST_F(MembershipTest, TriesUntilTheCoordinatorIsThere) {
  registry_.Answer(absl::UnavailableError("starting"), absl::OkStatus());
  Start();
  EXPECT_TRUE(registry_.Wait([](const auto& registrations, const auto&) {
    return registrations.size() >= 2;
  }));
  EXPECT_THAT(membership_->State(),
              StatusIs(StatusCode::kUnavailable, testing::_));
  registry_.Answer(absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(membership_->WaitRegistered(kLong), IsOk());
}

TEST_F(MembershipTest, RegistersAgainWhenItIsForgotten) {
  Start();
  ASSERT_THAT(membership_->WaitRegistered(kLong), IsOk());
  registry_.Answer(absl::OkStatus(), absl::NotFoundError("who?"));
  EXPECT_TRUE(registry_.Wait([](const auto& registrations, const auto&) {
    return registrations.size() == 2 &&
           registrations[0].request_id() != registrations[1].request_id();
  }));
}

TEST_F(MembershipTest, StopsWhenItsNameIsTaken) {
  Start();
  ASSERT_THAT(membership_->WaitRegistered(kLong), IsOk());
  registry_.Answer(absl::OkStatus(), absl::AbortedError("a newer w1"));
  refused_.WaitForNotification();
  EXPECT_THAT(refusal_, StatusIs(StatusCode::kAborted, HasSubstr("newer")));
}

TEST_F(MembershipTest, StopsWhenItIsRefused) {
  registry_.Answer(absl::InvalidArgumentError("bad name"), absl::OkStatus());
  Start();
  refused_.WaitForNotification();
  EXPECT_THAT(membership_->WaitRegistered(kLong),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("bad name")));
}

TEST_F(MembershipTest, DrainsThenRetires) {
  Start();
  ASSERT_THAT(membership_->WaitRegistered(kLong), IsOk());
  membership_->Drain();
  EXPECT_TRUE(registry_.Wait([](const auto&, const auto& renewals) {
    return !renewals.empty() && renewals.back().draining() &&
           !renewals.back().retired();
  }));
  EXPECT_THAT(membership_->Retire(), IsOk());
  EXPECT_TRUE(registry_.Wait([](const auto&, const auto& renewals) {
    return renewals.back().retired();
  }));
}

TEST(MembershipTimesTest, RenewsAtAThirdOfTheLease) {
  EXPECT_EQ(Membership::RenewAfter(absl::Seconds(9), 0), absl::Seconds(2.4));
  EXPECT_EQ(Membership::RenewAfter(absl::Seconds(9), 0.5), absl::Seconds(3));
}

TEST(MembershipTimesTest, BacksOffWithFullJitter) {
  EXPECT_EQ(Membership::RetryAfter(1, 0.5), absl::Milliseconds(50));
  EXPECT_EQ(Membership::RetryAfter(3, 0.5), absl::Milliseconds(200));
  EXPECT_EQ(Membership::RetryAfter(30, 0.5), absl::Seconds(1));
  EXPECT_EQ(Membership::RetryAfter(30, 0), absl::ZeroDuration());
}

}  // namespace
}  // namespace shardplane
