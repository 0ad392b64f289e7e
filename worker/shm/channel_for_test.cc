#include "worker/shm/channel_for_test.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

constexpr uint64_t kGap = 0x6a6a6a6a6a6a6a6a;

bool Reduces(ShmKind kind) {
  return kind != ShmKind::kShare && kind != ShmKind::kExchange;
}

bool Shares(ShmKind kind) {
  return kind != ShmKind::kExchange && kind != ShmKind::kExchangeReduce;
}

uint64_t Combined(uint64_t first, uint64_t second) {
  return first * 0x9e3779b97f4a7c15 + second;
}

void ReduceInOrder(std::byte* out, const std::byte* const* in, int count,
                   int64_t elements) {
  for (int64_t i = 0; i < elements; ++i) {
    uint64_t result = 0;
    for (int source = 0; source < count; ++source) {
      uint64_t number;
      std::memcpy(&number, in[source] + i * sizeof(number), sizeof(number));
      result = source == 0 ? number : Combined(result, number);
    }
    std::memcpy(out + i * sizeof(result), &result, sizeof(result));
  }
}

int64_t Longest(const Collective& collective) {
  int64_t longest = 0;
  for (const std::vector<int64_t>& row : collective.sizes) {
    for (const int64_t size : row) longest = std::max(longest, size);
  }
  return longest * static_cast<int64_t>(sizeof(uint64_t));
}

}  // namespace

std::shared_ptr<const ShmSegment> MakeSegment(int ranks, int64_t slot_bytes) {
  auto segment = ShmSegment::Create({.ranks = ranks, .slot_bytes = slot_bytes});
  EXPECT_TRUE(segment.ok()) << segment.status();
  return *std::move(segment);
}

void OnRanks(int ranks, const std::function<void(int rank)>& run) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
}

ShmReducer OrderedReducer() {
  return {.function = ReduceInOrder, .element_bytes = 8, .id = 1};
}

std::string Collective::ToString() const {
  std::vector<std::string> rows;
  for (const auto& row : sizes) rows.push_back(absl::StrJoin(row, ","));
  return absl::StrCat("kind ", static_cast<int>(kind), ", sizes ",
                      absl::StrJoin(rows, "; "), ", receives ",
                      absl::StrJoin(receives, ","),
                      sizes_known ? "" : ", sizes not known",
                      strided ? ", strided" : "", ", seed ", seed);
}

StridedNumbers::StridedNumbers(int64_t count, int64_t run, int64_t gap)
    : count_(count), run_(run), gap_(gap) {
  const int64_t runs = run == 0 ? 0 : (count + run - 1) / run;
  memory_.resize(run == 0 ? count : runs * (run + gap), kGap);
}

size_t StridedNumbers::PlaceOf(int64_t index) const {
  return run_ == 0 ? index : index / run_ * (run_ + gap_) + index % run_;
}

void StridedNumbers::Set(const Numbers& numbers) {
  for (int64_t i = 0; i < count_; ++i) memory_[PlaceOf(i)] = numbers[i];
}

Numbers StridedNumbers::numbers() const {
  Numbers numbers;
  Numbers rest = memory_;
  for (int64_t i = 0; i < count_; ++i) {
    numbers.push_back(memory_[PlaceOf(i)]);
    rest[PlaceOf(i)] = kGap;
  }
  EXPECT_EQ(rest, Numbers(rest.size(), kGap)) << "between runs";
  return numbers;
}

CollectiveOfRank::CollectiveOfRank(const Collective& collective, int rank)
    : collective_(collective),
      rank_(rank),
      layouts_(collective.seed * 1'000'003 + rank) {
  const bool shares = Shares(collective.kind);
  for (size_t to = 0; to < collective.sizes[rank].size(); ++to) {
    const Numbers numbers = Sent(rank, static_cast<int>(to));
    sent_.push_back(Memory(numbers.size()));
    sent_.back().Set(numbers);
  }
  if (Reduces(collective.kind)) {
    received_.push_back(Memory(collective.sizes[rank][shares ? 0 : rank]));
    return;
  }
  if (!collective.receives[rank]) return;
  for (int from = 0; from < collective.ranks(); ++from) {
    const auto& row = collective.sizes[from];
    received_.push_back(Memory(row.empty() ? 0 : row[shares ? 0 : rank]));
  }
}

StridedNumbers CollectiveOfRank::Memory(size_t count) {
  const int64_t size = static_cast<int64_t>(count);
  if (!collective_.strided || layouts_() % 2 == 0) return {size, 0, 0};
  const int64_t longest = layouts_() % 2 == 0 ? 4 : size + 2;
  const int64_t run = 1 + static_cast<int64_t>(layouts_() % longest);
  return {size, run, static_cast<int64_t>(layouts_() % 5)};
}

std::vector<Numbers> CollectiveOfRank::received() const {
  std::vector<Numbers> received;
  for (const StridedNumbers& each : received_)
    received.push_back(each.numbers());
  return received;
}

Numbers CollectiveOfRank::Sent(int from, int to) const {
  std::mt19937_64 random(collective_.seed * 1'000'003 + from * 1009 + to);
  Numbers numbers(collective_.sizes[from][to]);
  for (uint64_t& number : numbers) number = random();
  return numbers;
}

ShmTransfer CollectiveOfRank::transfer() {
  ShmTransfer transfer{
      .kind = collective_.kind,
      .longest = collective_.sizes_known ? Longest(collective_) : -1,
      .signature = collective_.seed};
  for (StridedNumbers& each : sent_)
    transfer.sources.push_back(each.part<ShmSource>());
  for (StridedNumbers& each : received_)
    transfer.targets.push_back(each.part<ShmTarget>());
  if (Reduces(collective_.kind)) transfer.reducer = OrderedReducer();
  return transfer;
}

std::vector<Numbers> CollectiveOfRank::expected() const {
  const bool shares = Shares(collective_.kind);
  std::vector<Numbers> pieces;
  for (int from = 0; from < collective_.ranks(); ++from) {
    pieces.push_back(collective_.sizes[from].empty()
                         ? Numbers()
                         : Sent(from, shares ? 0 : rank_));
  }
  if (!Reduces(collective_.kind)) {
    return collective_.receives[rank_] ? pieces : std::vector<Numbers>();
  }
  Numbers result = pieces[0];
  for (int from = 1; from < collective_.ranks(); ++from) {
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = Combined(result[i], pieces[from][i]);
    }
  }
  return {result};
}

Collective RandomCollective(int ranks, int64_t max_numbers, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  // Mostly small ones, also none, also many chunks.
  const auto size = [&] {
    const int64_t limit = below(4) == 0 ? max_numbers : max_numbers / 16;
    return below(8) == 0 ? 0 : below(limit + 1);
  };
  Collective collective{.kind = static_cast<ShmKind>(below(5)),
                        .receives = std::vector<bool>(ranks, true),
                        .seed = seed};
  const int64_t alike = size();
  const int root = below(3) == 0 ? static_cast<int>(below(ranks)) : -1;
  const bool reduces = Reduces(collective.kind);
  const bool from_root = !reduces && root >= 0 && below(2) == 0;
  const bool to_root = !reduces && root >= 0 && !from_root;
  std::vector<int64_t> by_target;  // an uneven reduce-scatter
  for (int to = 0; to < ranks; ++to) by_target.push_back(size());
  for (int from = 0; from < ranks; ++from) {
    std::vector<int64_t> row;
    if (collective.kind == ShmKind::kExchangeReduce) {
      row = by_target;
    } else if (!from_root || from == root) {
      const int pieces = Shares(collective.kind) ? 1 : ranks;
      for (int i = 0; i < pieces; ++i) row.push_back(reduces ? alike : size());
    }
    collective.sizes.push_back(row);
    collective.receives[from] = !to_root || from == root;
  }
  // A rank without sources keeps no row for itself alone.
  collective.sizes_known = reduces || below(2) == 0;
  collective.strided = below(2) == 0;
  return collective;
}

}  // namespace shardplane
