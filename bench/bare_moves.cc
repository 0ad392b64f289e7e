#include "bench/bare_moves.h"

#include <sched.h>

#include "worker/shm/moves.h"

namespace shardplane {
namespace {

// Where every rank has a core they need not yield.
constexpr int kLooksPerYield = 200;

}  // namespace

void BareMoves::Barrier() {
  ++barriers_;
  segment_->control(rank_).published.store(barriers_);
  for (int peer = 0; peer < segment_->sizes().ranks; ++peer) {
    for (int looks = 1; segment_->control(peer).published.load() < barriers_;
         ++looks) {
      if (looks % kLooksPerYield == 0) sched_yield();
    }
  }
}

void BareMoves::Run(const ShmTransfer& transfer) {
  const int64_t chunks = ChunkCount(transfer, segment_->sizes());
  for (int64_t i = 0; i < chunks; ++i) {
    const ShmChunk chunk{.transfer = &transfer,
                         .segment = segment_.get(),
                         .rank = rank_,
                         .index = i,
                         .sequence = sequence_++};
    WriteChunk(chunk);
    if (i == 0) Barrier();
    if (HasReduceStep(transfer.kind)) {
      ReduceChunk(chunk);
      if (i == 0) Barrier();
    }
    ReadChunk(chunk);
  }
}

}  // namespace shardplane
