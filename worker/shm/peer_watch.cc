#include "worker/shm/peer_watch.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

bool PeerWatch::Gone(int rank) const {
  if (others_.empty() || !others_[rank].valid()) return false;
  pollfd line{.fd = others_[rank].get(), .events = 0, .revents = 0};
  // Hang-ups are told without being asked for; nothing is ever sent.
  return poll(&line, 1, /*timeout=*/0) > 0 &&
         (line.revents & (POLLHUP | POLLERR)) != 0;
}

absl::StatusOr<std::vector<PeerLine>> MakePeerLines(int ranks) {
  std::vector<PeerLine> lines;
  for (int rank = 0; rank < ranks; ++rank) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
      return MakeError(
          absl::StatusCode::kResourceExhausted,
          absl::StrCat("shared memory: expected a socket for each of ", ranks,
                       " ranks, got: ", std::strerror(errno)),
          {.reason = "NO_SHARED_MEMORY", .metadata = {}});
    }
    lines.push_back({FileDescriptor(ends[0]), FileDescriptor(ends[1])});
  }
  return lines;
}

}  // namespace shardplane
