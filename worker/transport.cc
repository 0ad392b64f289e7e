#include "worker/transport.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

std::string ToString(Transport transport) {
  switch (transport) {
    case Transport::kSharedMemory:
      return "shm";
    case Transport::kGloo:
      return "gloo";
    case Transport::kNccl:
      return "nccl";
  }
  return "?";
}

absl::StatusOr<TransportChoice> ParseTransportChoice(absl::string_view text) {
  if (text == "auto") return TransportChoice::kAuto;
  if (text == "shm") return TransportChoice::kSharedMemory;
  if (text == "gloo") return TransportChoice::kGloo;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("collectives: expected auto, shm or gloo; got: ", text),
      {.reason = "UNKNOWN_TRANSPORT", .metadata = {}});
}

std::string ToString(const GroupTransport& group) {
  return absl::StrCat("mesh dim ", group.mesh_dim, ": ",
                      ToString(group.transport),
                      group.why.empty() ? "" : ", as ", group.why);
}

}  // namespace shardplane
