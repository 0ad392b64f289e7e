// Packets of bytes and open files between processes of one machine, over
// sockets whose names no file system knows.
#ifndef SHARDPLANE_IPC_LOCAL_SOCKET_H_
#define SHARDPLANE_IPC_LOCAL_SOCKET_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/file_descriptor.h"

namespace shardplane {

// Nothing here waits but AwaitReadable; all descriptors close on exec. Errors
// of the system are Unavailable, LOCAL_SOCKET_FAILED. A name means a socket of
// the same network namespace: what runs in another one is not found.

struct LocalListener {
  FileDescriptor socket;
  std::string name;
};
// With a name of 128 random bits, printable.
absl::StatusOr<LocalListener> ListenLocally(int backlog);
// Also an error: the name, of at most 90 bytes, is taken.
absl::StatusOr<LocalListener> ListenLocally(absl::string_view name,
                                            int backlog);

// The caller's end. Also an error: the listener is of another user.
absl::StatusOr<FileDescriptor> ConnectLocally(absl::string_view name);
// nullopt: nobody waits, or another user's process did.
absl::StatusOr<std::optional<FileDescriptor>> AcceptLocal(
    const FileDescriptor& listener);

struct Packet {
  std::string bytes;
  std::vector<FileDescriptor> files;
};
inline constexpr int kMaxPacketFiles = 128;
// Many of them fit into a socket (212,992 bytes by default).
inline constexpr int kMaxPacketBytes = 32768;

// Whole or not at all, as one packet; `parts` are not empty, all together.
// ResourceExhausted: the other side has not read so much that it has no room.
absl::Status SendPacket(const FileDescriptor& socket,
                        absl::Span<const absl::string_view> parts,
                        absl::Span<const int> files);
// nullopt: nothing has come. Aborted: the other side has closed.
absl::StatusOr<std::optional<Packet>> ReceivePacket(
    const FileDescriptor& socket);

// Whether one of them has something to read, or has ended, within that time.
bool AwaitReadable(absl::Span<const int> sockets,
                   std::chrono::milliseconds timeout);

}  // namespace shardplane

#endif  // SHARDPLANE_IPC_LOCAL_SOCKET_H_
