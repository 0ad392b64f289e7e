#include "ipc/local_socket.h"

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

constexpr size_t kMaxParts = 64;

absl::Status Failed(absl::string_view doing, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("local socket: expected to ", doing, "; got: ", why),
      {.reason = "LOCAL_SOCKET_FAILED", .metadata = {}});
}

absl::Status SystemFailed(absl::string_view doing) {
  return Failed(doing, std::strerror(errno));
}

absl::Status Closed() {
  return absl::AbortedError(
      "local socket: expected to receive a packet; got: a closed connection");
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
  Message() {
    header.msg_iov = io;
    header.msg_iovlen = 0;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  void Add(void* data, size_t size) { io[header.msg_iovlen++] = {data, size}; }

  iovec io[kMaxParts];
  msghdr header = {};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFiles)];
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

absl::StatusOr<LocalListener> ListenLocally(int backlog) {
  uint64_t random[2];
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
    return SystemFailed("draw a random name");
  }
  return ListenLocally(absl::StrCat(absl::Hex(random[0], absl::kZeroPad16),
                                    absl::Hex(random[1], absl::kZeroPad16)),
                       backlog);
}

absl::StatusOr<LocalListener> ListenLocally(absl::string_view name,
                                            int backlog) {
  LocalListener listener{
      .socket = FileDescriptor(socket(AF_UNIX, kSocketType, 0)),
      .name = std::string(name)};
  const Address address = AddressOf(listener.name);
  if (!listener.socket.valid() ||
      bind(listener.socket.get(),
           reinterpret_cast<const sockaddr*>(&address.data),
           address.bytes) != 0 ||
      listen(listener.socket.get(), backlog) != 0) {
    return SystemFailed("listen");
  }
  return listener;
}

absl::StatusOr<FileDescriptor> ConnectLocally(absl::string_view name) {
  FileDescriptor end(socket(AF_UNIX, kSocketType, 0));
  const Address address = AddressOf(name);
  if (!end.valid() ||
      connect(end.get(), reinterpret_cast<const sockaddr*>(&address.data),
              address.bytes) != 0) {
    return SystemFailed("connect");
  }
  if (!IsOurs(end)) {
    return Failed("connect", "another user's");
  }
  return end;
}

absl::StatusOr<std::optional<FileDescriptor>> AcceptLocal(
    const FileDescriptor& listener) {
  FileDescriptor end(
      accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!end.valid()) {
    if (WouldWait() || errno == ECONNABORTED) return std::nullopt;
    return SystemFailed("accept a connection");
  }
  if (!IsOurs(end)) return std::nullopt;
  return end;
}

absl::Status SendPacket(const FileDescriptor& socket,
                        absl::Span<const absl::string_view> parts,
                        absl::Span<const int> files) {
  size_t bytes = 0;
  for (const absl::string_view part : parts) bytes += part.size();
  if (files.size() > kMaxPacketFiles || bytes > kMaxPacketBytes ||
      parts.size() > kMaxParts) {
    return Failed("send a packet",
                  absl::StrCat(files.size(), " files, ", bytes, " bytes in ",
                               parts.size(), " parts: too much for one"));
  }
  Message message;
  for (const absl::string_view part : parts) {
    message.Add(const_cast<char*>(part.data()), part.size());
  }
  if (!files.empty()) {
    message.header.msg_control = message.control;
    message.header.msg_controllen = CMSG_SPACE(sizeof(int) * files.size());
    cmsghdr* part = CMSG_FIRSTHDR(&message.header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * files.size());
    std::memcpy(CMSG_DATA(part), files.data(), sizeof(int) * files.size());
  }
  for (;;) {
    if (sendmsg(socket.get(), &message.header, MSG_NOSIGNAL) >= 0) {
      return absl::OkStatus();
    }
    if (errno == EAGAIN) {
      return absl::ResourceExhaustedError("local socket: it is full");
    }
    if (errno != EINTR) return SystemFailed("send a packet");
  }
}

absl::StatusOr<std::optional<Packet>> ReceivePacket(
    const FileDescriptor& socket) {
  char bytes[kMaxPacketBytes];
  Message message;
  message.Add(bytes, sizeof(bytes));
  message.header.msg_control = message.control;
  message.header.msg_controllen = sizeof(message.control);
  const ssize_t count =
      recvmsg(socket.get(), &message.header, MSG_CMSG_CLOEXEC);
  if (count < 0) {
    if (WouldWait()) return std::nullopt;
    return errno == ECONNRESET ? Closed() : SystemFailed("receive a packet");
  }
  Packet packet{.bytes = std::string(bytes, count),
                .files = FilesOf(message.header)};
  if (count == 0) return Closed();
  // The kernel leaves out descriptors that this process has no room for.
  if ((message.header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) {
    return Failed("receive a packet", "a part of one");
  }
  return packet;
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
