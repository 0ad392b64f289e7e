// Groups whose ranks are threads of the test, and collectives of numbers to
// compare with what a loop says.
#ifndef SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_
#define SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_

#include <cstdint>
#include <functional>
#include <memory>
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
  uint64_t seed = 0;

  int ranks() const { return static_cast<int>(sizes.size()); }
  std::string ToString() const;
};

// One rank's part of a collective, with its buffers; stays where it is while a
// transfer runs.
class CollectiveOfRank {
 public:
  CollectiveOfRank(const Collective& collective, int rank);
  ShmTransfer transfer();
  // What came, and what should have.
  const std::vector<Numbers>& received() const { return received_; }
  std::vector<Numbers> expected() const;

 private:
  Numbers Sent(int from, int to) const;

  const Collective collective_;
  const int rank_;
  std::vector<Numbers> sent_;
  std::vector<Numbers> received_;
};

// A random one, up to `max_numbers` a piece.
Collective RandomCollective(int ranks, int64_t max_numbers, uint64_t seed);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_CHANNEL_FOR_TEST_H_
