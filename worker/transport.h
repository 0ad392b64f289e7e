// What carries the collectives of a group, and who chooses it.
#ifndef SHARDPLANE_WORKER_TRANSPORT_H_
#define SHARDPLANE_WORKER_TRANSPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

enum class Transport { kSharedMemory, kGloo, kNccl };
std::string ToString(Transport transport);  // "shm", "gloo", "nccl"

// Between CPUs. kAuto: shared memory where all ranks of a group can use it,
// else Gloo. kSharedMemory: that, or the group does not form. All ranks of a
// group come to the same, whatever each one's choice.
// Between GPUs. kAuto: NCCL. The others: those of the hosts, to whose memory
// tensors are copied and back; all ranks have to choose so.
enum class TransportChoice { kAuto, kSharedMemory, kGloo };
// "auto", "shm", "gloo". InvalidArgument: another word.
absl::StatusOr<TransportChoice> ParseTransportChoice(absl::string_view text);

// What the group along one mesh dim uses.
struct GroupTransport {
  std::string mesh_dim;
  Transport transport = Transport::kGloo;
  // With kGloo: why it is not shared memory.
  std::string why;
};
// "mesh dim tp: gloo, as rank 1 of the group is on another machine than rank
// 0".
std::string ToString(const GroupTransport& group);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TRANSPORT_H_
