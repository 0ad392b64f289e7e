#include "coordinator/worker_registry.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kLease = absl::Seconds(10);

class WorkerRegistryTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<Departure>> Register(const std::string& id,
                                                  uint64_t incarnation) {
    auto result = registry_.Register(
        {WorkerId{id}, Incarnation{incarnation}, "host:1", "host:2", "cpu"},
        now_);
    registry_.MarkReady(WorkerId{id}, Incarnation{incarnation}, now_);
    return result;
  }
  absl::StatusOr<std::vector<Departure>> Renew(
      const std::string& id, uint64_t incarnation,
      LeaseRequest request = LeaseRequest::kRenew) {
    return registry_.Renew(WorkerId{id}, Incarnation{incarnation}, request,
                           now_);
  }
  WorkerState StateOf(const std::string& id) {
    return registry_.Find(WorkerId{id})->state;
  }
  std::vector<std::string> Seat(int count, const std::string& deployment = "d",
                                uint64_t epoch = 1) {
    const auto seated =
        registry_.Assign(count, DeploymentId{deployment}, GangEpoch{epoch});
    std::vector<std::string> ids;
    if (!seated.ok()) {
      return {std::string(seated.status().message())};
    }
    for (const WorkerRecord& worker : *seated) {
      ids.push_back(worker.id.value);
    }
    return ids;
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  WorkerRegistry registry_{kLease};
};

TEST_F(WorkerRegistryTest, RegistersAndIsReady) {
  ASSERT_THAT(
      registry_.Register({WorkerId{"w0"}, Incarnation{7}, "host:1"}, now_),
      IsOk());
  EXPECT_EQ(StateOf("w0"), WorkerState::kRegistering);
  registry_.MarkReady(WorkerId{"w0"}, Incarnation{8}, now_);
  EXPECT_EQ(StateOf("w0"), WorkerState::kRegistering);
  registry_.MarkReady(WorkerId{"w0"}, Incarnation{7}, now_);
  EXPECT_EQ(StateOf("w0"), WorkerState::kReady);
  EXPECT_EQ(registry_.Find(WorkerId{"w0"})->lease_end, now_ + kLease);
}

TEST_F(WorkerRegistryTest, RepeatedRegistrationKeepsTheSeat) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  EXPECT_THAT(Seat(1), ElementsAre("w0"));
  EXPECT_THAT(Register("w0", 7), IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(StateOf("w0"), WorkerState::kReady);
  EXPECT_TRUE(registry_.Find(WorkerId{"w0"})->seat.has_value());
}

struct BadIntroduction {
  std::string name;
  std::string id;
  uint64_t incarnation;
  std::string address;
  std::string field;
  friend void PrintTo(const BadIntroduction& c, std::ostream* out) {
    *out << c.name;
  }
};
class BadIntroductionTest : public ::testing::TestWithParam<BadIntroduction> {};
TEST_P(BadIntroductionTest, IsRefused) {
  WorkerRegistry registry(kLease);
  EXPECT_THAT(
      registry.Register(
          {WorkerId{GetParam().id}, Incarnation{GetParam().incarnation},
           GetParam().address},
          absl::UnixEpoch()),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: ")),
            HasMetadata("field", GetParam().field)));
  EXPECT_THAT(registry.List(), IsEmpty());
}
INSTANTIATE_TEST_SUITE_P(
    All, BadIntroductionTest,
    ::testing::Values(
        BadIntroduction{"no id", "", 1, "host:1", "worker_id"},
        BadIntroduction{"slash in id", "a/b", 1, "host:1", "worker_id"},
        BadIntroduction{"long id", std::string(254, 'x'), 1, "host:1",
                        "worker_id"},
        BadIntroduction{"no incarnation", "w0", 0, "host:1", "incarnation"},
        BadIntroduction{"no address", "w0", 1, "", "address"}),
    CaseName<BadIntroduction>);

TEST_F(WorkerRegistryTest, LeaseRunsOutAfterItsEndOnly) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  EXPECT_THAT(Seat(1, "d", 3), ElementsAre("w0"));
  now_ += kLease;
  EXPECT_THAT(registry_.Expire(now_), IsEmpty());
  now_ += absl::Milliseconds(1);
  const std::vector<Departure> departures = registry_.Expire(now_);
  ASSERT_THAT(departures, SizeIs(1));
  EXPECT_EQ(departures[0].seat, (GangSeat{DeploymentId{"d"}, GangEpoch{3}, 0}));
  EXPECT_EQ(departures[0].reason,
            "worker w0 is LOST: its lease of 10s ran out");
  EXPECT_EQ(StateOf("w0"), WorkerState::kLost);
  EXPECT_THAT(registry_.Expire(now_), IsEmpty());
}

TEST_F(WorkerRegistryTest, RenewalKeepsTheLease) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  now_ += absl::Seconds(9);
  EXPECT_THAT(Renew("w0", 7), IsOk());
  now_ += absl::Seconds(9);
  EXPECT_THAT(registry_.Expire(now_), IsEmpty());
}

TEST_F(WorkerRegistryTest, RenewalOfAnUnknownWorkerIsNotFound) {
  EXPECT_THAT(Renew("w0", 7),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("w0")));
}

TEST_F(WorkerRegistryTest, LostWorkerRegistersAgainWithoutItsSeat) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  Seat(1);
  EXPECT_THAT(registry_.MarkLost(WorkerId{"w0"}, Incarnation{7},
                                 "its connection broke", now_),
              SizeIs(1));
  EXPECT_THAT(Renew("w0", 7),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("LOST")));
  EXPECT_THAT(Register("w0", 7), IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(StateOf("w0"), WorkerState::kReady);
  EXPECT_FALSE(registry_.Find(WorkerId{"w0"})->seat.has_value());
}

TEST_F(WorkerRegistryTest, MarkLostOfAnotherIncarnationDoesNothing) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  EXPECT_THAT(registry_.MarkLost(WorkerId{"w0"}, Incarnation{6}, "x", now_),
              IsEmpty());
  EXPECT_EQ(StateOf("w0"), WorkerState::kReady);
}

TEST_F(WorkerRegistryTest, NewIncarnationFencesTheOld) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  Seat(1);
  const auto departures = Register("w0", 8);
  ASSERT_THAT(departures, IsOkAndHolds(SizeIs(1)));
  EXPECT_EQ((*departures)[0].state, WorkerState::kFenced);
  EXPECT_THAT((*departures)[0].reason, HasSubstr("worker w0 is FENCED"));
  EXPECT_EQ(StateOf("w0"), WorkerState::kReady);
  EXPECT_FALSE(registry_.Find(WorkerId{"w0"})->seat.has_value());
  EXPECT_THAT(Renew("w0", 7),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("incarnation 7")));
  EXPECT_THAT(Register("w0", 7), HasReason("WORKER_FENCED"));
  EXPECT_THAT(Renew("w0", 8), IsOk());
  EXPECT_EQ(registry_.CountByState()[WorkerState::kFenced], 1);
}

TEST_F(WorkerRegistryTest, DrainingTakesNoNewGangAndKeepsItsOwn) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  ASSERT_THAT(Register("w1", 7), IsOk());
  EXPECT_THAT(Seat(1), ElementsAre("w0"));
  EXPECT_THAT(Renew("w0", 7, LeaseRequest::kDrain), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(Renew("w1", 7, LeaseRequest::kDrain), IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(StateOf("w0"), WorkerState::kDraining);
  EXPECT_TRUE(registry_.Find(WorkerId{"w0"})->seat.has_value());
  EXPECT_THAT(Seat(1, "e", 2), ElementsAre(HasSubstr("got: 0 free of 0")));
  const absl::Time since = registry_.Find(WorkerId{"w0"})->state_time;
  now_ += absl::Seconds(1);
  EXPECT_THAT(Renew("w0", 7, LeaseRequest::kDrain), IsOk());
  EXPECT_EQ(registry_.Find(WorkerId{"w0"})->state_time, since);
}

TEST_F(WorkerRegistryTest, RetiredWorkerLeavesItsSeat) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  Seat(1);
  const auto departures = Renew("w0", 7, LeaseRequest::kRetire);
  ASSERT_THAT(departures, IsOkAndHolds(SizeIs(1)));
  EXPECT_THAT((*departures)[0].reason, HasSubstr("w0 is RETIRED"));
  EXPECT_THAT(Renew("w0", 7),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("RETIRED")));
}

TEST_F(WorkerRegistryTest, AssignsInTheOrderOfIds) {
  for (const char* id : {"w2", "w0", "w3", "w1"}) {
    ASSERT_THAT(Register(id, 7), IsOk());
  }
  EXPECT_THAT(Seat(2), ElementsAre("w0", "w1"));
  EXPECT_THAT(Seat(2, "e", 2), ElementsAre("w2", "w3"));
}

TEST_F(WorkerRegistryTest, TooFewWorkersSaysHowManyAndSeatsNobody) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  ASSERT_THAT(Register("w1", 7), IsOk());
  Seat(1);
  const auto result = registry_.Assign(2, DeploymentId{"e"}, GangEpoch{2});
  EXPECT_THAT(result,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "the mesh needs 2 workers that are READY and free, "
                       "got: 1 free of 2 READY, 2 known"));
  EXPECT_THAT(result, HasReason("TOO_FEW_WORKERS"));
  EXPECT_FALSE(registry_.Find(WorkerId{"w1"})->seat.has_value());
}

TEST_F(WorkerRegistryTest, ReleaseOfAnOldEpochDoesNothing) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  EXPECT_THAT(Seat(1, "d", 5), ElementsAre("w0"));
  registry_.Release(WorkerId{"w0"}, GangEpoch{4});
  EXPECT_TRUE(registry_.Find(WorkerId{"w0"})->seat.has_value());
  registry_.Release(WorkerId{"w0"}, GangEpoch{5});
  EXPECT_FALSE(registry_.Find(WorkerId{"w0"})->seat.has_value());
}

TEST_F(WorkerRegistryTest, ForgetsWorkersLongGone) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  now_ += kLease + absl::Seconds(1);
  registry_.Expire(now_);
  now_ += absl::Hours(1) + absl::Seconds(1);
  registry_.Expire(now_);
  EXPECT_THAT(registry_.List(), IsEmpty());
}

TEST_F(WorkerRegistryTest, CountsEveryState) {
  ASSERT_THAT(Register("w0", 7), IsOk());
  const auto counts = registry_.CountByState();
  EXPECT_THAT(counts, SizeIs(6));
  EXPECT_EQ(counts.at(WorkerState::kReady), 1);
  EXPECT_EQ(counts.at(WorkerState::kLost), 0);
}

}  // namespace
}  // namespace shardplane
