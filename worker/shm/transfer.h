// What one rank asks of its group: which bytes go where, and how what arrives
// is put together. A value; ShmChannel (worker/shm/channel) carries it out.
#ifndef SHARDPLANE_WORKER_SHM_TRANSFER_H_
#define SHARDPLANE_WORKER_SHM_TRANSFER_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"

namespace shardplane {

// out[i] = ((in[0][i] + in[1][i]) + in[2][i]) ...: in the order given, with
// whatever operation the function stands for. `out` may be one of `in`, element
// for element. Two reducers that ranks compare are the same if their ids are.
struct ShmReducer {
  void (*function)(std::byte* out, const std::byte* const* in, int count,
                   int64_t elements) = nullptr;
  int64_t element_bytes = 1;
  uint32_t id = 0;
};

// `bytes` in all: run_bytes of them every stride_bytes, or, where run_bytes is
// 0, one after the other. Six bytes in runs of two every five: ab...cd...ef.
// Whole elements a run where they are reduced. In slots they lie together.
struct ShmSource {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  int64_t run_bytes = 0;
  int64_t stride_bytes = 0;
};
struct ShmTarget {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  int64_t run_bytes = 0;
  int64_t stride_bytes = 0;
};
// One a rank, of which there are few.
using ShmSources = absl::InlinedVector<ShmSource, 4>;
using ShmTargets = absl::InlinedVector<ShmTarget, 4>;

enum class ShmKind : uint8_t {
  // Each rank's one source goes to all that have a target for it; every rank
  // knows all sizes. Barrier, broadcast, all-gather, gather.
  kShare,
  // The same, reduced: one target, of each source's size.
  kShareReduce,
  // Source d goes to rank d. Scatter, all-to-all.
  kExchange,
  // The same, what arrives reduced into targets[0]. Reduce-scatter.
  kExchangeReduce,
  // One source and one target: each rank reduces its part of every chunk, and
  // all take the parts from one another. All-reduce of much.
  kReduceShare,
};

struct ShmTransfer {
  ShmKind kind = ShmKind::kShare;
  // kShare, kShareReduce and kReduceShare: sources[0], empty on a rank that has
  // nothing to say. Exchanges: one a rank, or none.
  ShmSources sources;
  // kShare and kExchange: one a rank (empty: not wanted), or none. Else one.
  ShmTargets targets;
  ShmReducer reducer;  // where the kind reduces
  // The longest piece of any rank in bytes, by which ranks agree on the number
  // of chunks; -1: not known here, the ranks tell each other first.
  int64_t longest = 0;
  // What the call is, for all ranks alike: ranks that differ are told so.
  uint64_t signature = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_TRANSFER_H_
