#include "ipc/link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

// What a packet begins with: one without any bytes would be the end.
constexpr absl::string_view kBeginning("m", 1);

size_t SizeOf(absl::Span<const absl::string_view> parts) {
  size_t size = 0;
  for (const absl::string_view part : parts) size += part.size();
  return size;
}

}  // namespace

Link::Link(FileDescriptor socket)
    : socket_(std::move(socket)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

absl::Status Link::TrySend(absl::Span<const absl::string_view> parts,
                           const SharedBytes* rest) {
  if (rest == nullptr) return SendPacket(socket_, parts, {});
  return SendPacket(socket_, parts, {rest->file()});
}

Link::Sent Link::Send(absl::Span<const absl::string_view> parts,
                      std::shared_ptr<const SharedBytes> rest) {
  std::vector<absl::string_view> packet = {kBeginning};
  if (rest == nullptr && SizeOf(parts) > kMaxInline) {
    absl::StatusOr<SharedBytes> shared = SharedBytes::Create(parts.subspan(1));
    if (!shared.ok()) {
      Close();
      return Sent::kNever;
    }
    rest = std::make_shared<const SharedBytes>(*std::move(shared));
    parts = parts.first(1);
  }
  packet.insert(packet.end(), parts.begin(), parts.end());
  absl::MutexLock lock(&mutex_);
  if (closed_) return Sent::kNever;
  const absl::Status sent = TrySend(packet, rest.get());
  if (sent.ok()) return Sent::kNow;
  if (!absl::IsResourceExhausted(sent)) return Sent::kNever;
  unsent_ = std::make_unique<Unsent>();
  for (const absl::string_view part : packet) {
    absl::StrAppend(&unsent_->bytes, part);
  }
  unsent_->rest = std::move(rest);
  Wake();
  return Sent::kLater;
}

void Link::ReadOn() {
  absl::MutexLock lock(&mutex_);
  reading_ = true;
  Wake();
}

void Link::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  shutdown(socket_.get(), SHUT_RDWR);
  Wake();
}

void Link::Wake() {
  if (!waiting_) return;
  waiting_ = false;
  const uint64_t one = 1;
  // It cannot be full: one is added at a time, and taken before the next.
  (void)!write(wake_.get(), &one, sizeof(one));
}

short Link::Wait() {
  pollfd polled[] = {{.fd = socket_.get(), .events = 0, .revents = 0},
                     {.fd = wake_.get(), .events = POLLIN, .revents = 0}};
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return POLLHUP;
    if (reading_) polled[0].events |= POLLIN;
    if (unsent_ != nullptr) polled[0].events |= POLLOUT;
    waiting_ = true;
  }
  poll(polled, 2, -1);  // what interrupts it is looked at again
  absl::MutexLock lock(&mutex_);
  if (!waiting_) {
    uint64_t count;
    (void)!read(wake_.get(), &count, sizeof(count));
  }
  waiting_ = false;
  return polled[0].revents;
}

absl::Status Link::Receive(Handler& handler) {
  absl::StatusOr<std::optional<Packet>> packet = ReceivePacket(socket_);
  if (!packet.ok()) return packet.status();
  if (!packet->has_value()) return absl::OkStatus();
  const std::vector<FileDescriptor>& files = (*packet)->files;
  absl::string_view rest;
  std::optional<MappedBytes> mapped;
  if (!files.empty()) {
    absl::StatusOr<MappedBytes> map = MappedBytes::Map(files[0]);
    if (!map.ok()) return map.status();
    rest = mapped.emplace(*std::move(map)).bytes();
  }
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
  }
  handler.OnMessage(
      absl::string_view((*packet)->bytes).substr(kBeginning.size()), rest);
  return absl::OkStatus();
}

absl::Status Link::SendUnsent(Handler& handler) {
  {
    absl::MutexLock lock(&mutex_);
    if (unsent_ == nullptr) return absl::OkStatus();
    const absl::Status sent = TrySend({unsent_->bytes}, unsent_->rest.get());
    if (absl::IsResourceExhausted(sent)) return absl::OkStatus();
    if (!sent.ok()) return sent;
    unsent_ = nullptr;
  }
  handler.OnSent();
  return absl::OkStatus();
}

absl::Status Link::Run(Handler& handler) {
  absl::Status status = wake_.get() < 0
                            ? absl::UnavailableError("local socket: no eventfd")
                            : absl::OkStatus();
  while (status.ok()) {
    const short events = Wait();
    if ((events & POLLIN) != 0) {
      status = Receive(handler);
    } else if ((events & (POLLHUP | POLLERR)) != 0) {
      status = absl::AbortedError("local socket: a closed connection");
    }
    if (status.ok() && (events & POLLOUT) != 0) status = SendUnsent(handler);
  }
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::OkStatus();
  closed_ = true;
  // The other side may not know: it is not read from here any more.
  shutdown(socket_.get(), SHUT_RDWR);
  return status;
}

}  // namespace shardplane
