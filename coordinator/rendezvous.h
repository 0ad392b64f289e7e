// The gangs' key-value stores: where ranks meet to connect to each other.
#ifndef SHARDPLANE_COORDINATOR_RENDEZVOUS_H_
#define SHARDPLANE_COORDINATOR_RENDEZVOUS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/ids.h"

namespace shardplane {

// Who asks: one rank of one formation of a gang.
struct RendezvousMember {
  DeploymentId deployment;
  GangEpoch epoch;
  Incarnation incarnation;
  int rank = 0;
};

// In memory; thread-safe; owned by the Coordinator. Semantics are those of
// c10d::TCPStore. Every method may return Aborted: the member's epoch is not
// the open one, the incarnation is not that rank's, or the gang was closed
// (also while waiting).
class Rendezvous {
 public:
  static constexpr size_t kMaxKeys = 100'000;  // of one gang
  static constexpr size_t kMaxBytes = size_t{64} << 20;

  // Opens an empty store for a gang; closes an older one of that deployment.
  void Open(const DeploymentId& deployment, GangEpoch epoch,
            std::vector<Incarnation> incarnations_by_rank);
  // Drops the store; whoever waits in it gets Aborted with `reason`.
  void Close(const DeploymentId& deployment, GangEpoch epoch,
             const std::string& reason);

  // ResourceExhausted: over kMaxKeys or kMaxBytes.
  absl::Status Set(const RendezvousMember& member, const std::string& key,
                   std::string value);
  // Waits for all keys. DeadlineExceeded, naming the first that is missing.
  absl::StatusOr<std::vector<std::string>> Get(
      const RendezvousMember& member, absl::Span<const std::string> keys,
      absl::Time deadline);
  // Adds to a decimal number, 0 where there is none. InvalidArgument if the
  // value is no number.
  absl::StatusOr<int64_t> Add(const RendezvousMember& member,
                              const std::string& key, int64_t amount);
  // Sets `desired` where the value is `expected`, or where there is none and
  // `expected` is empty. Returns what is there afterwards (`expected` where
  // still nothing is).
  absl::StatusOr<std::string> CompareSet(const RendezvousMember& member,
                                         const std::string& key,
                                         const std::string& expected,
                                         const std::string& desired);
  struct Found {
    bool found = false;
    int64_t total_keys = 0;
  };
  absl::StatusOr<Found> Delete(const RendezvousMember& member,
                               const std::string& key);
  absl::StatusOr<Found> Check(const RendezvousMember& member,
                              absl::Span<const std::string> keys);

 private:
  struct Gang {
    GangEpoch epoch;
    std::vector<Incarnation> incarnations;
    absl::btree_map<std::string, std::string> values;
    size_t bytes = 0;
    std::string closed;  // why, once it is
  };

  absl::StatusOr<std::shared_ptr<Gang>> Admit(const RendezvousMember& member)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Put(Gang& gang, const std::string& key, std::string value)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  // Shared with the calls that wait in a gang when it is closed.
  absl::btree_map<DeploymentId, std::shared_ptr<Gang>> gangs_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_RENDEZVOUS_H_
