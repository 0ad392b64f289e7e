// Which processes of a group have died: the kernel closes what they held.
#ifndef SHARDPLANE_WORKER_SHM_PEER_WATCH_H_
#define SHARDPLANE_WORKER_SHM_PEER_WATCH_H_

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/file_descriptor.h"

namespace shardplane {

// The ends that one rank has: of each rank's line, whose other end that rank
// alone holds. Thread-safe once made.
class PeerWatch {
 public:
  // Watches nobody: ranks that are threads of one process.
  PeerWatch() = default;
  // `own`: kept open as long as this rank lives. `others`: by rank, its own
  // entry invalid.
  PeerWatch(FileDescriptor own, std::vector<FileDescriptor> others)
      : own_(std::move(own)), others_(std::move(others)) {}

  // Whether that rank's process is gone; does not wait.
  bool Gone(int rank) const;

 private:
  FileDescriptor own_;
  std::vector<FileDescriptor> others_;
};

// A line of each rank: `own` for that rank alone, `watched` for all others.
struct PeerLine {
  FileDescriptor own;
  FileDescriptor watched;
};
// ResourceExhausted: no more files may be opened.
absl::StatusOr<std::vector<PeerLine>> MakePeerLines(int ranks);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_PEER_WATCH_H_
