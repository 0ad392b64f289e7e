// How the ranks of a group come to share memory, or learn why they cannot.
#ifndef SHARDPLANE_WORKER_SHM_RENDEZVOUS_H_
#define SHARDPLANE_WORKER_SHM_RENDEZVOUS_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "worker/executor.h"
#include "worker/shm/host_identity.h"
#include "worker/shm/peer_watch.h"
#include "worker/shm/segment.h"

namespace shardplane {

// What one rank holds of it.
struct ShmGroupMemory {
  std::shared_ptr<const ShmSegment> segment;  // shared with the channel
  PeerWatch watch;
};
// A sentence without a full stop, the same on all ranks: "rank 1 of the group
// is on another machine than rank 0".
struct NoShmGroup {
  std::string why;
};

struct ShmRendezvousOptions {
  std::chrono::milliseconds timeout{60'000};  // of it all
  int64_t slot_bytes = 256 * 1024;            // rank 0's counts
  // Why this rank will not share memory; "": it will.
  std::string unwilling;
  // Where this rank is; else it asks the system.
  std::optional<HostIdentity> host;
};

// Every rank calls it, with a prefix of the group's own in the store, and all
// come to the same result. They compare where they are; rank 0 makes the
// memory and hands it to the others, over sockets; then they vote, and only if
// every rank has it, it is used. Nothing that was made outlives its processes.
// Blocks until all ranks are there. Errors: the store's, above all
// DeadlineExceeded for ranks that do not come and Cancelled.
absl::StatusOr<std::variant<ShmGroupMemory, NoShmGroup>> JoinShmGroup(
    GangStore& store, const std::string& prefix, int rank, int size,
    const ShmRendezvousOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_RENDEZVOUS_H_
