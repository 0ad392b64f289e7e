// The bytes of a transfer, chunk by chunk: into this rank's slots, out of the
// others'. Pure but for the segment's memory; who may touch which slot when is
// ShmChannel's (worker/shm/channel) to say.
#ifndef SHARDPLANE_WORKER_SHM_MOVES_H_
#define SHARDPLANE_WORKER_SHM_MOVES_H_

#include <cstdint>

#include "worker/shm/segment.h"
#include "worker/shm/transfer.h"

namespace shardplane {

// One chunk of one rank's transfer.
struct ShmChunk {
  const ShmTransfer* transfer;
  const ShmSegment* segment;
  int rank = 0;
  int64_t index = 0;      // in the transfer
  uint64_t sequence = 0;  // of all chunks of the group, which gives the slot
};

// Chunks that a transfer takes; 1 at least. `transfer.longest` is known.
int64_t ChunkCount(const ShmTransfer& transfer, const ShmSizes& sizes);
// kReduceShare has a step between writing and reading.
bool HasReduceStep(ShmKind kind);

// Step 1, on every rank: this rank's data into its own slot.
void WriteChunk(const ShmChunk& chunk);
// Step 2, where there is one: this rank's part of all slots, reduced, into its
// target and its own slot. All ranks have written.
void ReduceChunk(const ShmChunk& chunk);
// Step 3, on every rank: what this rank wants of the others' slots into its
// targets. The ranks of PeersRead have done all steps before.
void ReadChunk(const ShmChunk& chunk);
// The ranks, one bit each, whose slots this rank reads in step 3.
uint64_t PeersRead(const ShmTransfer& transfer, const ShmSizes& sizes,
                   int rank);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_MOVES_H_
