// How a rank waits for what another writes into shared memory, and how it is
// woken.
#ifndef SHARDPLANE_WORKER_SHM_WAITING_H_
#define SHARDPLANE_WORKER_SHM_WAITING_H_

#include <chrono>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "worker/shm/segment.h"

namespace shardplane {

// First it looks again and again, then lets others run, then sleeps.
struct ShmPatience {
  // 0 where there are fewer cores than ranks: what is waited for needs one.
  std::chrono::nanoseconds spinning{0};
  std::chrono::nanoseconds yielding{0};
  // Between two looks at whether a peer has died.
  std::chrono::nanoseconds nap{0};
};
// For that many ranks on this machine.
ShmPatience DefaultPatience(int ranks);

// One rank's waiting. To yield is the fastest where only ranks want the cores;
// where something else runs as well, that keeps the core for a time slice of
// milliseconds. So after such a yield it sleeps at once for a while: who sleeps
// is woken. One thread.
class ShmWaiter {
 public:
  explicit ShmWaiter(const ShmPatience& patience) : patience_(patience) {}

  // Returns once `ready` does, or after about one nap: the caller looks at
  // what else may have happened and calls again. `control` is this rank's;
  // others ring its bell after they have changed what `ready` reads. All loads
  // and stores that decide are sequentially consistent.
  void AwaitOnce(ShmControl& control, absl::FunctionRef<bool()> ready);

 private:
  bool Spin(absl::FunctionRef<bool()> ready) const;
  bool Yield(absl::FunctionRef<bool()> ready);

  const ShmPatience patience_;
  int without_yielding_ = 0;  // waits to come
  int penalty_ = 0;           // waits that the next slow yield costs
};

// Wakes that rank if it sleeps; after the change that it waits for.
void RingIfAsleep(ShmControl& control);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_WAITING_H_
