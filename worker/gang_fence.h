// Which gang a worker belongs to, and which calls are meant for it. Pure.
#ifndef SHARDPLANE_WORKER_GANG_FENCE_H_
#define SHARDPLANE_WORKER_GANG_FENCE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace shardplane {

// Who a call is meant for.
struct GangCall {
  std::string deployment;  // deployments/{d}
  uint64_t epoch = 0;
  uint64_t incarnation = 0;
  std::string request_id;
};

// The newest epoch that this process has heard of is the only one it obeys.
// Example: in epoch 3, a call of epoch 2 is Aborted, one of epoch 4 other than
// a join FailedPrecondition. Not thread-safe.
class GangFence {
 public:
  explicit GangFence(uint64_t incarnation) : incarnation_(incarnation) {}

  // Whether a call reaches the present gang. Aborted, metadata "expected":
  // meant for another process, an older epoch, another deployment.
  // FailedPrecondition: the worker is in no gang, or not yet in that one.
  absl::Status Check(const GangCall& call) const;

  enum class Join { kNew, kAgain };
  // Aborted: as Check, and an epoch that has been left.
  absl::Status CheckJoin(const GangCall& call, Join* join) const;
  void Enter(const GangCall& call);

  // Aborted: as Check. Leaving what has been left is fine.
  absl::Status CheckLeave(const GangCall& call) const;
  void Leave() { in_gang_ = false; }

  // Aborted unless the call means this process and this epoch or a newer one.
  absl::Status CheckAbort(const GangCall& call) const;

  bool in_gang() const { return in_gang_; }
  uint64_t epoch() const { return epoch_; }

 private:
  absl::Status CheckNotOlder(const GangCall& call) const;

  const uint64_t incarnation_;
  uint64_t epoch_ = 0;  // real ones begin at 1
  std::string deployment_;
  bool in_gang_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_FENCE_H_
