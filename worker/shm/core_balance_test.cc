#include "worker/shm/core_balance.h"

#include <sched.h>

#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::ElementsAre;

// Where each rank would go.
std::vector<int> Moves(const std::vector<int>& cores,
                       const std::vector<int>& allowed = {0, 1}) {
  std::vector<int> moves;
  for (int rank = 0; rank < static_cast<int>(cores.size()); ++rank) {
    moves.push_back(CoreToGoTo(rank, cores, allowed));
  }
  return moves;
}

TEST(CoreToGoToTest, TheHighestRankLeavesACrowdedCore) {
  EXPECT_THAT(Moves({0, 0, 0, 1}), ElementsAre(-1, -1, 1, -1));
  EXPECT_THAT(Moves({1, 1}), ElementsAre(-1, 0));
  EXPECT_THAT(Moves({1, 1, 1, 1}), ElementsAre(-1, -1, -1, 0));
}

TEST(CoreToGoToTest, NobodyLeavesWhereOneMoreIsNotTooMany) {
  EXPECT_THAT(Moves({0, 0, 1, 1}), ElementsAre(-1, -1, -1, -1));
  EXPECT_THAT(Moves({0, 0, 1}), ElementsAre(-1, -1, -1));
  EXPECT_THAT(Moves({0}), ElementsAre(-1));
}

TEST(CoreToGoToTest, ItGoesToTheLowestOfTheEmptiest) {
  EXPECT_THAT(Moves({2, 2, 1, 3}, {0, 1, 2, 3}), ElementsAre(-1, 0, -1, -1));
  EXPECT_THAT(Moves({2, 2, 0, 1}, {0, 1, 2, 3, 4}), ElementsAre(-1, 3, -1, -1));
}

TEST(CoreToGoToTest, OnlyToCoresThatItMayUse) {
  EXPECT_THAT(Moves({0, 0, 0}, {0}), ElementsAre(-1, -1, -1));
  EXPECT_THAT(Moves({0, 0, 0}, {}), ElementsAre(-1, -1, -1));
}

// One that is not known is nowhere, and stays.
TEST(CoreToGoToTest, UnknownCoresDoNotCount) {
  EXPECT_THAT(Moves({-1, 0, 0, -1}), ElementsAre(-1, -1, 1, -1));
  EXPECT_THAT(Moves({-1, 0, 1, -1}), ElementsAre(-1, -1, -1, -1));
}

std::vector<int> AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

// Rank 2 of three, of which the others say that they are on its core too. On a
// machine of one core there is nowhere to go.
TEST(CoreBalanceTest, MovesThisThreadAndLeavesItFree) {
  auto segment = ShmSegment::Create({.ranks = 3, .slot_bytes = 64});
  ASSERT_THAT(segment, IsOk());
  std::thread([&] {
    const std::vector<int> allowed = AllowedCores();
    CoreBalance balance;
    CoreBalance::Note(**segment, 2);
    const uint32_t before = (*segment)->control(2).core.load();
    ASSERT_GT(before, 0u);
    (*segment)->control(0).core.store(before);
    (*segment)->control(1).core.store(before);
    balance.Look(**segment, 2);
    const uint32_t after = (*segment)->control(2).core.load();
    EXPECT_EQ(after != before, allowed.size() > 1);
    EXPECT_EQ(AllowedCores(), allowed);
  }).join();
}

TEST(CoreBalanceTest, ARankThatIsNotAloneWithTwoStays) {
  auto segment = ShmSegment::Create({.ranks = 3, .slot_bytes = 64});
  ASSERT_THAT(segment, IsOk());
  CoreBalance balance;
  balance.Look(**segment, 2);  // nobody else has said where it is
  EXPECT_GT((*segment)->control(2).core.load(), 0u);
  EXPECT_EQ((*segment)->control(0).core.load(), 0u);
}

}  // namespace
}  // namespace shardplane
