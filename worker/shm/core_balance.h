// Ranks of one machine spread over its cores.
#ifndef SHARDPLANE_WORKER_SHM_CORE_BALANCE_H_
#define SHARDPLANE_WORKER_SHM_CORE_BALANCE_H_

#include <chrono>

#include "absl/types/span.h"
#include "worker/shm/segment.h"

namespace shardplane {

// The core to which `rank` should go; -1: it stays. `cores`: by rank, where
// each was last, -1 where that is not known. `allowed`: where this one may run.
//
// It goes from a core that at least two more ranks share than the emptiest one
// has, and only the highest rank there goes, to the lowest of the emptiest.
// Cases, with 0 and 1 allowed:
//   [0, 0, 0, 1] -> rank 2 to 1;  [0, 0, 1, 1], [0, 0, 1] -> nobody
//   [1, 1] -> rank 1 to 0
int CoreToGoTo(int rank, absl::Span<const int> cores,
               absl::Span<const int> allowed);

// Where ranks wait by yielding they never sleep, and so the kernel, which
// places a thread when it wakes, leaves three of them on one core while the
// other one idles for less than it takes note of. A rank that waits looks at
// where the others are and changes its core once; it stays free to be moved.
// One thread.
class CoreBalance {
 public:
  // Tells the others where the rank is.
  static void Note(const ShmSegment& segment, int rank);
  // To be called while the rank waits, as often as may be: seldom does more
  // than Note.
  void Look(const ShmSegment& segment, int rank);

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point next_ = {};  // look at where the others are
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_CORE_BALANCE_H_
