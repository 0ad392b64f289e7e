// Hands open files from one process of this machine to another, over sockets
// whose names no file system knows.
#ifndef SHARDPLANE_WORKER_SHM_HANDOVER_H_
#define SHARDPLANE_WORKER_SHM_HANDOVER_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/shm/file_descriptor.h"

namespace shardplane {

// Nothing here waits but AwaitReadable; all descriptors close on exec. Errors
// of the system are Unavailable, HANDOVER_FAILED.

struct HandoverListener {
  FileDescriptor socket;
  std::string name;  // 128 random bits, printable
};
absl::StatusOr<HandoverListener> ListenForHandover(int backlog);

// The caller's end. Also an error: the listener is of another user.
absl::StatusOr<FileDescriptor> ConnectForHandover(absl::string_view name);
// nullopt: nobody waits, or another user's process did.
absl::StatusOr<std::optional<FileDescriptor>> AcceptForHandover(
    const FileDescriptor& listener);

struct Handover {
  std::string bytes;
  std::vector<FileDescriptor> files;
};
inline constexpr int kMaxHandoverFiles = 128;
inline constexpr int kMaxHandoverBytes = 256;

// Whole or not at all; `bytes` is not empty.
absl::Status SendHandover(const FileDescriptor& socket, absl::string_view bytes,
                          absl::Span<const int> files);
// nullopt: nothing has come. Aborted: the other side has closed.
absl::StatusOr<std::optional<Handover>> ReceiveHandover(
    const FileDescriptor& socket);

// Whether one of them has something to read, or has ended, within that time.
bool AwaitReadable(absl::Span<const int> sockets,
                   std::chrono::milliseconds timeout);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_HANDOVER_H_
