#include "worker/process_groups.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "c10/util/Exception.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/fake_gang_store.h"
#include "worker/gang_for_test.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using Created = absl::StatusOr<std::unique_ptr<ProcessGroups>>;

class ProcessGroupsTest : public ::testing::Test {
 protected:
  GangSpec Spec(int rank, std::vector<MeshDim> dims) const {
    return {.deployment = "deployments/d",
            .epoch = 1,
            .rank = rank,
            .mesh = *DeviceMesh::Create(std::move(dims)),
            .timeout = std::chrono::seconds(60)};
  }

  // One rank a choice.
  std::vector<Created> Create(const std::vector<MeshDim>& dims,
                              const std::vector<TransportChoice>& choices) {
    std::vector<Created> created(choices.size());
    ForEachRank(static_cast<int>(choices.size()), [&](int rank) {
      try {
        created[rank] = ProcessGroups::Create(Spec(rank, dims), store_,
                                              {.transport = choices[rank]});
      } catch (const c10::DistStoreError&) {
        created[rank] = absl::CancelledError("the store threw");
      }
      // A rank that fails ends the others' wait, as a coordinator would.
      if (!created[rank].ok()) store_->Cancel();
    });
    return created;
  }

  static std::vector<std::string> Transports(const Created& created) {
    std::vector<std::string> texts;
    for (const GroupTransport& group : (*created)->transports())
      texts.push_back(ToString(group));
    return texts;
  }

  const std::shared_ptr<FakeGangStore> store_ =
      std::make_shared<FakeGangStore>();
};

TEST_F(ProcessGroupsTest, OnOneMachineTheyShareMemory) {
  for (const Created& rank : Create({{"dp", 2}, {"one", 1}, {"tp", 2}},
                                    {4, TransportChoice::kAuto})) {
    ASSERT_THAT(rank, IsOk());
    EXPECT_THAT(Transports(rank),
                ElementsAre("mesh dim dp: shm", "mesh dim tp: shm"));
    EXPECT_EQ((*rank)->group(1), nullptr);
    EXPECT_EQ((*rank)->group(2)->size(), 2);
  }
}

TEST_F(ProcessGroupsTest, OneRankThatIsToldToUseGlooIsEnough) {
  for (const Created& rank :
       Create({{"tp", 3}}, {TransportChoice::kAuto, TransportChoice::kAuto,
                            TransportChoice::kGloo})) {
    ASSERT_THAT(rank, IsOk());
    EXPECT_THAT(Transports(rank),
                ElementsAre("mesh dim tp: gloo, as rank 2 of the group: it is "
                            "told to use gloo"));
  }
}

TEST_F(ProcessGroupsTest, TheChoiceIsOfEachGroup) {
  // Rank 3 is in a dp group with 1 and in a tp group with 2.
  const std::vector<Created> ranks = Create(
      {{"dp", 2}, {"tp", 2}}, {TransportChoice::kAuto, TransportChoice::kAuto,
                               TransportChoice::kAuto, TransportChoice::kGloo});
  for (const Created& rank : ranks) ASSERT_THAT(rank, IsOk());
  const auto of = [&](int rank, int dim) {
    return (*ranks[rank])->transports()[dim].transport;
  };
  EXPECT_EQ(of(0, 0), Transport::kSharedMemory);
  EXPECT_EQ(of(0, 1), Transport::kSharedMemory);
  EXPECT_EQ(of(1, 0), Transport::kGloo);
  EXPECT_EQ(of(1, 1), Transport::kSharedMemory);
  EXPECT_EQ(of(2, 0), Transport::kSharedMemory);
  EXPECT_EQ(of(2, 1), Transport::kGloo);
  EXPECT_EQ(of(3, 0), Transport::kGloo);
  EXPECT_EQ(of(3, 1), Transport::kGloo);
}

TEST_F(ProcessGroupsTest, SharedMemoryThatIsAskedForOrNothing) {
  for (const Created& rank :
       Create({{"tp", 2}}, {2, TransportChoice::kSharedMemory})) {
    ASSERT_THAT(rank, IsOk());
    EXPECT_THAT(Transports(rank), ElementsAre("mesh dim tp: shm"));
  }
}

TEST_F(ProcessGroupsTest, SharedMemoryThatIsAskedForAndCannotBe) {
  const std::vector<Created> ranks = Create(
      {{"tp", 2}}, {TransportChoice::kSharedMemory, TransportChoice::kGloo});
  EXPECT_THAT(ranks[0],
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "collectives: expected shared memory on mesh dim tp; "
                       "got: rank 1 of the group: it is told to use gloo"));
  EXPECT_THAT(ranks[0], HasReason("NO_SHARED_MEMORY"));
  EXPECT_THAT(ranks[0], HasMetadata("mesh_dim", "tp"));
  EXPECT_THAT(ranks[1], StatusIs(absl::StatusCode::kCancelled,
                                 "the store "
                                 "threw"));
}

TEST_F(ProcessGroupsTest, ARankThatDoesNotCome) {
  GangSpec spec = Spec(0, {{"tp", 2}});
  spec.timeout = std::chrono::milliseconds(20);
  try {
    EXPECT_THAT(ProcessGroups::Create(spec, store_, {}), Not(IsOk()));
    FAIL();
  } catch (const c10::DistStoreError& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                HasSubstr("forming a group: DEADLINE_EXCEEDED: "));
  }
}

TEST_F(ProcessGroupsTest, OtherDevicesHaveNoTransport) {
  const auto created = ProcessGroups::Create(Spec(0, {{"tp", 2}}), store_,
                                             {.device = c10::Device("meta")});
  EXPECT_THAT(created, StatusIs(absl::StatusCode::kUnimplemented,
                                HasSubstr("got: meta")));
}

}  // namespace
}  // namespace shardplane
