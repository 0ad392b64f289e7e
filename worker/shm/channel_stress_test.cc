// Random collectives of random sizes on the groups of a 2 x 2 mesh, several
// under way at once, against a loop's results. Runs under TSan, too.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "worker/shm/channel.h"
#include "worker/shm/channel_for_test.h"

namespace shardplane {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kSlotBytes = 512;
constexpr int64_t kMaxNumbers = 2000;
// In all groups together.
constexpr int kCollectives = 10'000;
constexpr int kMaxUnderWay = 5;

uint64_t Seed() {
  const char* given = std::getenv("SHARDPLANE_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10)
                          : std::random_device()();
}

// A group of the mesh as one rank knows it.
struct Group {
  std::unique_ptr<ShmChannel> channel;
  // Started, not yet waited for.
  std::vector<std::pair<ShmChannel::Ticket, std::unique_ptr<CollectiveOfRank>>>
      running;
};

// The `count` oldest, waited for in an order of this rank's own.
void Finish(Group& group, size_t count, std::mt19937_64& own) {
  const auto end = group.running.begin() + count;
  std::shuffle(group.running.begin(), end, own);
  for (auto it = group.running.begin(); it != end; ++it) {
    auto& [ticket, collective] = *it;
    const absl::Status status = group.channel->Wait(ticket);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(collective->received(), collective->expected());
  }
  group.running.erase(group.running.begin(), end);
}

TEST(ShmChannelStress, RandomCollectivesOnRandomGroups) {
  const uint64_t seed = Seed();
  RecordProperty("seed", std::to_string(seed));
  std::cout << "SHARDPLANE_TEST_SEED=" << seed << std::endl;
  // The whole mesh, its rows, its columns.
  const auto whole = MakeSegment(kRanks, kSlotBytes);
  const std::vector<std::shared_ptr<const ShmSegment>> rows = {
      MakeSegment(2, kSlotBytes), MakeSegment(2, kSlotBytes)};
  const std::vector<std::shared_ptr<const ShmSegment>> columns = {
      MakeSegment(2, kSlotBytes), MakeSegment(2, kSlotBytes)};
  OnRanks(kRanks, [&](int rank) {
    const auto options = [](int group_rank) {
      return ShmChannel::Options{.rank = group_rank,
                                 .patience = DefaultPatience(kRanks)};
    };
    std::vector<Group> groups(3);
    const int row = rank / 2;
    const int column = rank % 2;
    groups[0].channel =
        std::make_unique<ShmChannel>(whole, PeerWatch(), options(rank));
    groups[1].channel =
        std::make_unique<ShmChannel>(rows[row], PeerWatch(), options(column));
    groups[2].channel = std::make_unique<ShmChannel>(columns[column],
                                                     PeerWatch(), options(row));
    std::mt19937_64 shared(seed);  // what all ranks must agree on
    std::mt19937_64 own(seed + 1 + rank);
    for (int i = 0; i < kCollectives && !::testing::Test::HasFatalFailure();
         ++i) {
      Group& group = groups[shared() % groups.size()];
      const Collective collective =
          RandomCollective(group.channel->size(), kMaxNumbers, shared());
      auto mine =
          std::make_unique<CollectiveOfRank>(collective, group.channel->rank());
      const auto ticket = group.channel->Start(mine->transfer());
      ASSERT_TRUE(ticket.ok()) << ticket.status();
      group.running.emplace_back(*ticket, std::move(mine));
      const size_t kept = shared() % kMaxUnderWay;
      if (group.running.size() > kept) {
        Finish(group, group.running.size() - kept, own);
      }
    }
    for (Group& group : groups) {
      Finish(group, group.running.size(), own);
    }
  });
}

}  // namespace
}  // namespace shardplane
