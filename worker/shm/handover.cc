#include "worker/shm/handover.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

constexpr int kSocketType = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;

absl::Status Failed(absl::string_view doing, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("shared memory: expected to ", doing, "; got: ", why),
      {.reason = "HANDOVER_FAILED", .metadata = {}});
}

absl::Status SystemFailed(absl::string_view doing) {
  return Failed(doing, std::strerror(errno));
}

absl::Status Closed() {
  return absl::AbortedError(
      "shared memory: expected to receive files; got: a closed connection");
}

bool WouldWait() { return errno == EAGAIN || errno == EINTR; }

struct Address {
  sockaddr_un data = {};
  socklen_t bytes = 0;
};

// In the abstract name space: it is gone with the socket.
Address AddressOf(absl::string_view name) {
  Address address;
  address.data.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("shardplane-", name);
  const size_t length =
      std::min(path.size(), sizeof(address.data.sun_path) - 1);
  std::memcpy(address.data.sun_path + 1, path.data(), length);
  address.bytes = offsetof(sockaddr_un, sun_path) + 1 + length;
  return address;
}

// Whether the process at the other end runs as this one's user.
bool IsOurs(const FileDescriptor& socket) {
  ucred peer = {};
  socklen_t bytes = sizeof(peer);
  return getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) ==
             0 &&
         peer.uid == geteuid();
}

// One message, with room for descriptors. Points into itself.
struct Message {
  explicit Message(void* data, size_t size) : io{data, size} {
    header.msg_iov = &io;
    header.msg_iovlen = 1;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  iovec io;
  msghdr header = {};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxHandoverFiles)];
};

std::vector<FileDescriptor> FilesOf(msghdr& header) {
  std::vector<FileDescriptor> files;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
       part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
      continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int file = -1;
      std::memcpy(&file, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      files.emplace_back(file);
    }
  }
  return files;
}

}  // namespace

absl::StatusOr<HandoverListener> ListenForHandover(int backlog) {
  uint64_t random[2];
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
    return SystemFailed("draw a random name");
  }
  HandoverListener listener{
      .socket = FileDescriptor(socket(AF_UNIX, kSocketType, 0)),
      .name = absl::StrCat(absl::Hex(random[0], absl::kZeroPad16),
                           absl::Hex(random[1], absl::kZeroPad16))};
  const Address address = AddressOf(listener.name);
  if (!listener.socket.valid() ||
      bind(listener.socket.get(),
           reinterpret_cast<const sockaddr*>(&address.data),
           address.bytes) != 0 ||
      listen(listener.socket.get(), backlog) != 0) {
    return SystemFailed("listen on a local socket");
  }
  return listener;
}

absl::StatusOr<FileDescriptor> ConnectForHandover(absl::string_view name) {
  FileDescriptor end(socket(AF_UNIX, kSocketType, 0));
  const Address address = AddressOf(name);
  if (!end.valid() ||
      connect(end.get(), reinterpret_cast<const sockaddr*>(&address.data),
              address.bytes) != 0) {
    return SystemFailed("connect to rank 0's local socket");
  }
  if (!IsOurs(end)) {
    return Failed("connect to rank 0's local socket", "another user's");
  }
  return end;
}

absl::StatusOr<std::optional<FileDescriptor>> AcceptForHandover(
    const FileDescriptor& listener) {
  FileDescriptor end(
      accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!end.valid()) {
    if (WouldWait() || errno == ECONNABORTED) return std::nullopt;
    return SystemFailed("accept a rank's connection");
  }
  if (!IsOurs(end)) return std::nullopt;
  return end;
}

absl::Status SendHandover(const FileDescriptor& socket, absl::string_view bytes,
                          absl::Span<const int> files) {
  if (files.size() > kMaxHandoverFiles || bytes.size() > kMaxHandoverBytes) {
    return Failed("hand over files",
                  absl::StrCat(files.size(), " files, ", bytes.size(),
                               " bytes: too much for one message"));
  }
  Message message(const_cast<char*>(bytes.data()), bytes.size());
  if (!files.empty()) {
    message.header.msg_control = message.control;
    message.header.msg_controllen = CMSG_SPACE(sizeof(int) * files.size());
    cmsghdr* part = CMSG_FIRSTHDR(&message.header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * files.size());
    std::memcpy(CMSG_DATA(part), files.data(), sizeof(int) * files.size());
  }
  if (sendmsg(socket.get(), &message.header, MSG_NOSIGNAL) < 0) {
    return SystemFailed("hand over files");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Handover>> ReceiveHandover(
    const FileDescriptor& socket) {
  char bytes[kMaxHandoverBytes];
  Message message(bytes, sizeof(bytes));
  message.header.msg_control = message.control;
  message.header.msg_controllen = sizeof(message.control);
  const ssize_t count =
      recvmsg(socket.get(), &message.header, MSG_CMSG_CLOEXEC);
  if (count < 0) {
    if (WouldWait()) return std::nullopt;
    return errno == ECONNRESET ? Closed() : SystemFailed("receive files");
  }
  Handover handover{.bytes = std::string(bytes, count),
                    .files = FilesOf(message.header)};
  if (count == 0) return Closed();
  // The kernel leaves out descriptors that this process has no room for.
  if ((message.header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) {
    return Failed("receive files", "a part of the message");
  }
  return handover;
}

bool AwaitReadable(absl::Span<const int> sockets,
                   std::chrono::milliseconds timeout) {
  std::vector<pollfd> polled;
  for (const int socket : sockets) {
    polled.push_back({.fd = socket, .events = POLLIN, .revents = 0});
  }
  return poll(polled.data(), polled.size(), static_cast<int>(timeout.count())) >
         0;
}

}  // namespace shardplane
