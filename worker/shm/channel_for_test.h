// Groups whose ranks are threads of the test, and collectives of numbers to
// compare with what a loop says.
#ifndef SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_
#define SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "worker/shm/channel.h"
#include "worker/shm/segment.h"
#include "worker/shm/transfer.h"

namespace shardplane {

using Numbers = std::vector<uint64_t>;

std::shared_ptr<const ShmSegment> MakeSegment(int ranks, int64_t slot_bytes);

// Calls `run` on a thread for each rank, and returns when all have.
void OnRanks(int ranks, const std::function<void(int rank)>& run);

// Of 8-byte numbers: another order of the operands gives another result.
ShmReducer OrderedReducer();

// One collective, the same on all ranks: sizes[from][to] numbers travel, or
// sizes[from][0] to all where the kind shares. What rank r sends is random
// by (seed, from, to, index).
struct Collective {
  ShmKind kind = ShmKind::kShare;
  std::vector<std::vector<int64_t>> sizes;
  std::vector<bool> receives;  // by rank: whether it has targets
  bool sizes_known = true;     // to all ranks
  // Every other buffer lies in runs of random lengths, gaps between.
  bool strided = false;
  uint64_t seed = 0;

  int ranks() const { return static_cast<int>(sizes.size()); }
  std::string ToString() const;
};

// Numbers in memory: `run` of them, a gap, `run` of them ...; one after the
// other where `run` is 0.
class StridedNumbers {
 public:
  // What is in no run stays as it is: checked by `numbers`.
  StridedNumbers(int64_t count, int64_t run, int64_t gap);
  void Set(const Numbers& numbers);
  Numbers numbers() const;
  template <typename Part>  // ShmSource or ShmTarget
  Part part() {
    constexpr int64_t kBytes = sizeof(uint64_t);
    return {reinterpret_cast<std::byte*>(memory_.data()), count_ * kBytes,
            run_ * kBytes, (run_ + gap_) * kBytes};
  }

 private:
  size_t PlaceOf(int64_t index) const;

  const int64_t count_;
  const int64_t run_;
  const int64_t gap_;
  Numbers memory_;
};

// One rank's part of a collective, with its buffers; stays where it is while a
// transfer runs.
class CollectiveOfRank {
 public:
  CollectiveOfRank(const Collective& collective, int rank);
  ShmTransfer transfer();
  // What came, and what should have.
  std::vector<Numbers> received() const;
  std::vector<Numbers> expected() const;

 private:
  Numbers Sent(int from, int to) const;
  StridedNumbers Memory(size_t count);

  const Collective collective_;
  const int rank_;
  std::mt19937_64 layouts_;
  std::vector<StridedNumbers> sent_;
  std::vector<StridedNumbers> received_;
};

// A random one, up to `max_numbers` a piece.
Collective RandomCollective(int ranks, int64_t max_numbers, uint64_t seed);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_
