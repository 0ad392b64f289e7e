// What collectives over shared memory cannot go below: their copies and sums,
// with a bare barrier and none of the protocol.
#ifndef SHARDPLANE_BENCH_BARE_MOVES_H_
#define SHARDPLANE_BENCH_BARE_MOVES_H_

#include <cstdint>
#include <memory>

#include "worker/shm/segment.h"
#include "worker/shm/transfer.h"

namespace shardplane {

// One rank's end. Ranks wait for each other once before they first reduce and
// once before they first read, and then no more: what they copy after that may
// be anything. One thread.
class BareMoves {
 public:
  BareMoves(std::shared_ptr<const ShmSegment> segment, int rank)
      : segment_(std::move(segment)), rank_(rank) {}

  // `transfer.longest` is known.
  void Run(const ShmTransfer& transfer);
  // Returns when all ranks are here.
  void Barrier();

 private:
  const std::shared_ptr<const ShmSegment> segment_;  // shared by all ranks
  const int rank_;
  uint64_t barriers_ = 0;
  uint64_t sequence_ = 0;  // of chunks: slots in turn, as a channel's
};

}  // namespace shardplane

#endif  // SHARDPLANE_BENCH_BARE_MOVES_H_
