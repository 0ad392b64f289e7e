// How a coordinator and a worker of one machine find each other for
// Worker.Steps without gRPC, and what their messages are.
#ifndef SHARDPLANE_IPC_STEP_SOCKET_H_
#define SHARDPLANE_IPC_STEP_SOCKET_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// Where the worker process of that incarnation listens: a name for
// ListenLocally, found by those alone that know the incarnation, run as the
// same user and are in the same network namespace.
inline std::string StepSocketName(uint64_t incarnation) {
  return absl::StrCat("steps-", absl::Hex(incarnation, absl::kZeroPad16));
}

// What a message begins with. The rest of it:
//   to the worker       kSteps: a v1.StepsRequest
//   to the coordinator  kSteps: a v1.StepsResponse
//                       kEnd:   a google.rpc.Status, the stream's; the last one
inline constexpr absl::string_view kStepsTag("s", 1);
inline constexpr absl::string_view kEndTag("e", 1);

}  // namespace shardplane

#endif  // SHARDPLANE_IPC_STEP_SOCKET_H_
