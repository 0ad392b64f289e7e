#include "worker/shm/channel.h"

#include <atomic>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/shm/channel_for_test.h"
#include "worker/shm/segment.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSlotBytes = 1024;  // 128 numbers a chunk

ShmChannel::Options OptionsOf(int rank) {
  return {.rank = rank,
          .timeout = std::chrono::seconds(60),
          .patience = DefaultPatience(4)};
}

// Runs them one after the other on every rank.
void Compare(const std::vector<Collective>& collectives) {
  const int ranks = collectives.front().ranks();
  const auto segment = MakeSegment(ranks, kSlotBytes);
  OnRanks(ranks, [&](int rank) {
    ShmChannel channel(segment, PeerWatch(), OptionsOf(rank));
    for (const Collective& collective : collectives) {
      CollectiveOfRank mine(collective, rank);
      const auto ticket = channel.Start(mine.transfer());
      ASSERT_THAT(ticket, IsOk());
      ASSERT_THAT(channel.Wait(*ticket), IsOk());
      EXPECT_EQ(mine.received(), mine.expected())
          << "rank " << rank << ": " << collective.ToString();
    }
  });
}

Collective Alike(ShmKind kind, int ranks, int64_t size) {
  const size_t pieces =
      kind == ShmKind::kExchange || kind == ShmKind::kExchangeReduce ? ranks
                                                                     : 1;
  return {.kind = kind,
          .sizes = std::vector<std::vector<int64_t>>(
              ranks, std::vector<int64_t>(pieces, size)),
          .receives = std::vector<bool>(ranks, true),
          .seed = 1};
}

using KindAndRanks = std::tuple<ShmKind, int>;
class EveryKind : public ::testing::TestWithParam<KindAndRanks> {};

// None, one, less than a chunk, just one, several with a rest, many.
TEST_P(EveryKind, MovesEverySize) {
  const auto [kind, ranks] = GetParam();
  std::vector<Collective> collectives;
  for (const int64_t size : {0, 1, 7, 127, 128, 129, 1000, 5000}) {
    collectives.push_back(Alike(kind, ranks, size));
  }
  Compare(collectives);
}

// The same from and to memory with gaps; seeds give other runs.
TEST_P(EveryKind, MovesRuns) {
  const auto [kind, ranks] = GetParam();
  std::vector<Collective> collectives;
  for (const int64_t size : {0, 1, 7, 128, 129, 1000}) {
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      collectives.push_back(Alike(kind, ranks, size));
      collectives.back().strided = true;
      collectives.back().seed = seed;
    }
  }
  Compare(collectives);
}

std::string NameOf(const ::testing::TestParamInfo<KindAndRanks>& info) {
  static constexpr const char* kNames[] = {"Share", "ShareReduce", "Exchange",
                                           "ExchangeReduce", "ReduceShare"};
  return absl::StrCat(kNames[static_cast<int>(std::get<0>(info.param))], "On",
                      std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryKind,
    ::testing::Combine(::testing::Values(ShmKind::kShare, ShmKind::kShareReduce,
                                         ShmKind::kExchange,
                                         ShmKind::kExchangeReduce,
                                         ShmKind::kReduceShare),
                       ::testing::Values(1, 2, 3, 4, 7)),
    NameOf);

TEST(ShmChannel, BroadcastComesFromOneRankAlone) {
  for (int root = 0; root < 3; ++root) {
    Collective collective{.kind = ShmKind::kShare,
                          .sizes = {{}, {}, {}},
                          .receives = {true, true, true},
                          .seed = 2};
    collective.sizes[root] = {700};
    Compare({collective});
  }
}

TEST(ShmChannel, GatherGoesToOneRankAloneAndSizesAreTold) {
  Compare({{.kind = ShmKind::kShare,
            .sizes = {{5}, {600}, {0}},
            .receives = {false, true, false},
            .sizes_known = false,
            .seed = 3}});
}

TEST(ShmChannel, AllToAllOfAnySizes) {
  Collective collective{.kind = ShmKind::kExchange,
                        .sizes = {{3, 0, 700}, {1, 2, 3}, {0, 0, 0}},
                        .receives = {true, true, true},
                        .sizes_known = false,
                        .seed = 4};
  Compare({collective, collective});
}

// What is waited for first was started last; the others are done then, too.
TEST(ShmChannel, SeveralUnderWayWaitedForInAnyOrder) {
  const auto segment = MakeSegment(3, kSlotBytes);
  OnRanks(3, [&](int rank) {
    ShmChannel channel(segment, PeerWatch(), OptionsOf(rank));
    std::vector<std::unique_ptr<CollectiveOfRank>> running;
    std::vector<ShmChannel::Ticket> tickets;
    for (const int64_t size : {3, 900, 10, 129}) {
      running.push_back(std::make_unique<CollectiveOfRank>(
          Alike(ShmKind::kReduceShare, 3, size), rank));
      const auto ticket = channel.Start(running.back()->transfer());
      ASSERT_THAT(ticket, IsOk());
      tickets.push_back(*ticket);
    }
    ASSERT_THAT(channel.Wait(tickets.back()), IsOk());
    for (size_t i = 0; i < running.size(); ++i) {
      const absl::StatusOr<bool> done = channel.Test(tickets[i]);
      ASSERT_THAT(done, IsOk());
      EXPECT_TRUE(*done);
      EXPECT_EQ(running[i]->received(), running[i]->expected());
    }
  });
}

// A rank publishes when it starts: others need not wait for its Wait.
TEST(ShmChannel, StartIsEnoughForTheOthers) {
  const auto segment = MakeSegment(2, kSlotBytes);
  std::atomic<bool> other_done = false;
  OnRanks(2, [&](int rank) {
    ShmChannel channel(segment, PeerWatch(), OptionsOf(rank));
    CollectiveOfRank mine(Alike(ShmKind::kShareReduce, 2, 16), rank);
    const auto ticket = channel.Start(mine.transfer());
    ASSERT_THAT(ticket, IsOk());
    if (rank == 0) {
      other_done.wait(false);
      EXPECT_THAT(channel.Wait(*ticket), IsOk());
    } else {
      EXPECT_THAT(channel.Wait(*ticket), IsOk());
      other_done = true;
      other_done.notify_all();
    }
    EXPECT_EQ(mine.received(), mine.expected());
  });
}

TEST(ShmChannel, TestGoesOnWithoutWaiting) {
  const auto segment = MakeSegment(2, kSlotBytes);
  ShmChannel zero(segment, PeerWatch(), OptionsOf(0));
  ShmChannel one(segment, PeerWatch(), OptionsOf(1));
  const Collective collective = Alike(ShmKind::kReduceShare, 2, 1000);
  CollectiveOfRank of_zero(collective, 0);
  CollectiveOfRank of_one(collective, 1);
  const auto first = zero.Start(of_zero.transfer());
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(zero.Test(*first), IsOkAndHolds(false));
  const auto second = one.Start(of_one.transfer());
  ASSERT_THAT(second, IsOk());
  bool done = false;
  for (int turn = 0; turn < 100 && !done; ++turn) {
    const auto zero_done = zero.Test(*first);
    const auto one_done = one.Test(*second);
    ASSERT_THAT(zero_done, IsOk());
    ASSERT_THAT(one_done, IsOk());
    done = *zero_done && *one_done;
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(of_zero.received(), of_zero.expected());
  EXPECT_EQ(of_one.received(), of_one.expected());
}

// ------------------------------------------------------------------ errors

// Rank 0 waits for a reduction that rank 1 never joins.
absl::Status WaitWhile(const ShmChannel::Options& options,
                       const std::function<void(ShmChannel& other)>& act) {
  const auto segment = MakeSegment(2, kSlotBytes);
  ShmChannel waiting(segment, PeerWatch(), options);
  auto other = std::make_unique<ShmChannel>(segment, PeerWatch(), OptionsOf(1));
  CollectiveOfRank mine(Alike(ShmKind::kShareReduce, 2, 16), 0);
  const auto ticket = waiting.Start(mine.transfer());
  EXPECT_THAT(ticket, IsOk());
  std::thread actor([&] { act(*other); });
  const absl::Status status = waiting.Wait(*ticket);
  actor.join();
  // Broken for good, with the same words.
  EXPECT_EQ(waiting.Wait(*ticket), status);
  EXPECT_EQ(waiting.Start(mine.transfer()).status(), status);
  return status;
}

TEST(ShmChannelErrors, APeersAbortEndsTheWaiting) {
  EXPECT_THAT(WaitWhile(OptionsOf(0), [](ShmChannel& other) { other.Abort(); }),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1")));
}

TEST(ShmChannelErrors, OwnAbortEndsTheWaiting) {
  const auto segment = MakeSegment(2, kSlotBytes);
  ShmChannel channel(segment, PeerWatch(), OptionsOf(0));
  CollectiveOfRank mine(Alike(ShmKind::kShareReduce, 2, 16), 0);
  const auto ticket = channel.Start(mine.transfer());
  ASSERT_THAT(ticket, IsOk());
  std::thread actor([&] { channel.Abort(); });
  EXPECT_THAT(channel.Wait(*ticket),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Abort")));
  actor.join();
}

TEST(ShmChannelErrors, APeerThatIsLate) {
  ShmChannel::Options options = OptionsOf(0);
  options.timeout = std::chrono::milliseconds(30);
  EXPECT_THAT(
      WaitWhile(options, [](ShmChannel&) {}),
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("within 30 ms")));
}

TEST(ShmChannelErrors, AnotherCollectiveOnThePeer) {
  Collective other_size = Alike(ShmKind::kShareReduce, 2, 17);
  Collective other_call = Alike(ShmKind::kShareReduce, 2, 16);
  other_call.seed = 77;
  for (const Collective& theirs :
       {Alike(ShmKind::kShare, 2, 16), other_size, other_call}) {
    EXPECT_THAT(WaitWhile(OptionsOf(0),
                          [&](ShmChannel& other) {
                            CollectiveOfRank part(theirs, 1);
                            EXPECT_THAT(
                                other.Start(part.transfer()),
                                StatusIs(absl::StatusCode::kFailedPrecondition,
                                         HasSubstr("another one on rank 0")));
                          }),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("another one on rank 1")));
  }
}

// What the rank that left had published is there.
TEST(ShmChannelErrors, WhatALeavingRankHasSaidStillCounts) {
  const auto segment = MakeSegment(2, kSlotBytes);
  ShmChannel stays(segment, PeerWatch(), OptionsOf(0));
  const Collective collective = Alike(ShmKind::kShareReduce, 2, 16);
  CollectiveOfRank theirs(collective, 1);
  {
    ShmChannel leaves(segment, PeerWatch(), OptionsOf(1));
    ASSERT_THAT(leaves.Start(theirs.transfer()), IsOk());
  }
  CollectiveOfRank mine(collective, 0);
  const auto ticket = stays.Start(mine.transfer());
  ASSERT_THAT(ticket, IsOk());
  EXPECT_THAT(stays.Wait(*ticket), IsOk());
  EXPECT_EQ(mine.received(), mine.expected());
  const auto next = stays.Start(mine.transfer());
  ASSERT_THAT(next, IsOk());
  EXPECT_THAT(stays.Wait(*next),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1")));
}

TEST(ShmChannelErrors, PartsThatDoNotFitBreakNothing) {
  const auto segment = MakeSegment(1, kSlotBytes);
  ShmChannel channel(segment, PeerWatch(), OptionsOf(0));
  EXPECT_THAT(channel.Start({.kind = ShmKind::kShareReduce}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("expected a reducer")));
  CollectiveOfRank mine(Alike(ShmKind::kShareReduce, 1, 16), 0);
  ShmTransfer shorter = mine.transfer();
  shorter.targets[0].bytes = 8;
  EXPECT_THAT(channel.Start(shorter),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("size of this rank's source")));
  ShmTransfer torn = mine.transfer();
  torn.targets[0].run_bytes = 12;
  EXPECT_THAT(channel.Start(torn),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("runs of whole elements")));
  EXPECT_THAT(channel.Start(mine.transfer()), IsOk());
}

TEST(ShmSegmentTest, RefusesSizesOutOfRange) {
  for (const ShmSizes& sizes :
       {ShmSizes{0, 1024}, ShmSizes{65, 1024}, ShmSizes{2, 0},
        ShmSizes{2, 1000}, ShmSizes{2, int64_t{1} << 40}}) {
    EXPECT_THAT(
        ShmSegment::Create(sizes),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: ")));
  }
}

}  // namespace
}  // namespace shardplane
