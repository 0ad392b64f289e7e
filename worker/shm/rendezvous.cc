#include "worker/shm/rendezvous.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "common/errors.h"
#include "ipc/file_descriptor.h"
#include "ipc/local_socket.h"

namespace shardplane {
namespace {

using Clock = std::chrono::steady_clock;

// Between two looks at the store: has it been cancelled, has a rank given up?
constexpr std::chrono::milliseconds kLook{50};

// Values in the store. "no" alone: only because another rank said it.
constexpr char kYes[] = "yes";
constexpr char kNo[] = "no";
constexpr char kNoBecause[] = "no: ";

// A visitor's first message, and rank 0's answer to it.
struct Hello {
  int32_t rank = 0;
};
struct SegmentOffer {
  int32_t ranks = 0;
  int64_t slot_bytes = 0;
};
constexpr char kTaken[] = "taken";

template <typename T>
std::string Pack(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <typename T>
std::optional<T> Unpack(const std::string& bytes) {
  T value;
  if (bytes.size() != sizeof(T)) return std::nullopt;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// Not this rank's own failure: it goes along with another's.
absl::Status GivenUp() { return absl::AbortedError("another rank gave up"); }

absl::Status Unexpected(absl::string_view expected) {
  return MakeError(absl::StatusCode::kUnavailable,
                   absl::StrCat("shared memory: expected ", expected,
                                ", got: another message"),
                   {.reason = "LOCAL_SOCKET_FAILED", .metadata = {}});
}

class Rendezvous {
 public:
  Rendezvous(GangStore& store, const std::string& prefix, int rank, int size,
             const ShmRendezvousOptions& options)
      : store_(store),
        prefix_(prefix),
        rank_(rank),
        size_(size),
        options_(options),
        deadline_(Clock::now() + options.timeout) {}

  absl::StatusOr<std::variant<ShmGroupMemory, NoShmGroup>> Join();

 private:
  std::string HostKey(int rank) const {
    return absl::StrCat(prefix_, "/host/", rank);
  }
  std::string VoteKey(int rank) const {
    return absl::StrCat(prefix_, "/vote/", rank);
  }
  std::string AddressKey() const { return absl::StrCat(prefix_, "/address"); }
  std::chrono::milliseconds Remaining() const;
  // What all ranks have set under their keys, this rank `value`.
  absl::StatusOr<std::vector<std::string>> Exchange(
      std::string (Rendezvous::*key)(int) const, std::string value);

  std::string OwnHost() const;
  // Why they are too far apart; "": they are not.
  std::string Compare(absl::Span<const std::string> hosts) const;
  std::string Count(absl::Span<const std::string> votes) const;

  // Rank 0's part.
  absl::StatusOr<ShmGroupMemory> Offer();
  absl::Status ServeAll(const LocalListener& listener,
                        const ShmSegment& segment,
                        std::vector<PeerLine>& lines);
  absl::Status Serve(const FileDescriptor& visitor, int rank,
                     const ShmSegment& segment, std::vector<PeerLine>& lines);
  // The others'.
  absl::StatusOr<ShmGroupMemory> Visit();
  absl::StatusOr<FileDescriptor> Connect();
  absl::StatusOr<ShmGroupMemory> Take(Packet packet);

  absl::StatusOr<Packet> Receive(const FileDescriptor& socket);
  // Until one can be read, which it may be already.
  absl::Status Await(absl::Span<const int> sockets);
  // OK while waiting makes sense.
  absl::Status Look();

  GangStore& store_;
  const std::string prefix_;
  const int rank_;
  const int size_;
  const ShmRendezvousOptions& options_;
  const Clock::time_point deadline_;
  std::vector<int> awaited_;  // rank 0: those that have not come yet
};

std::chrono::milliseconds Rendezvous::Remaining() const {
  return std::max(std::chrono::milliseconds(0),
                  std::chrono::duration_cast<std::chrono::milliseconds>(
                      deadline_ - Clock::now()));
}

absl::StatusOr<std::vector<std::string>> Rendezvous::Exchange(
    std::string (Rendezvous::*key)(int) const, std::string value) {
  SP_RETURN_IF_ERROR(store_.Set((this->*key)(rank_), std::move(value)));
  std::vector<std::string> keys;
  for (int rank = 0; rank < size_; ++rank) keys.push_back((this->*key)(rank));
  return store_.Get(keys, Remaining());
}

std::string Rendezvous::OwnHost() const {
  if (!options_.unwilling.empty())
    return absl::StrCat(kNoBecause, options_.unwilling);
  if (options_.host.has_value()) return ToString(*options_.host);
  const absl::StatusOr<HostIdentity> host = ThisHost();
  return host.ok() ? ToString(*host)
                   : absl::StrCat(kNoBecause, host.status().message());
}

std::string Rendezvous::Compare(absl::Span<const std::string> hosts) const {
  std::vector<HostIdentity> identities;
  for (int rank = 0; rank < size_; ++rank) {
    absl::string_view why = hosts[rank];
    if (absl::ConsumePrefix(&why, kNoBecause))
      return absl::StrCat("rank ", rank, " of the group: ", why);
    identities.push_back(
        ParseHostIdentity(hosts[rank])
            .value_or(HostIdentity{
                .kernel = "", .network = "", .user = "", .layout = ""}));
  }
  for (int rank = 1; rank < size_; ++rank) {
    const std::string apart = HowApart(identities[0], identities[rank]);
    if (apart.empty()) continue;
    return absl::StrCat("rank ", rank, " of the group ", apart, " rank 0");
  }
  return "";
}

std::string Rendezvous::Count(absl::Span<const std::string> votes) const {
  std::vector<std::string> reasons;
  bool all = true;
  for (int rank = 0; rank < size_; ++rank) {
    all = all && votes[rank] == kYes;
    absl::string_view why = votes[rank];
    if (absl::ConsumePrefix(&why, kNoBecause))
      reasons.push_back(absl::StrCat("rank ", rank, " of the group: ", why));
  }
  if (all) return "";
  return reasons.empty() ? "a rank of the group gave up"
                         : absl::StrJoin(reasons, "; ");
}

absl::StatusOr<std::variant<ShmGroupMemory, NoShmGroup>> Rendezvous::Join() {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> hosts,
                      Exchange(&Rendezvous::HostKey, OwnHost()));
  if (std::string why = Compare(hosts); !why.empty())
    return NoShmGroup{std::move(why)};
  absl::StatusOr<ShmGroupMemory> memory = rank_ == 0 ? Offer() : Visit();
  std::string vote = kYes;
  if (absl::IsAborted(memory.status())) {
    vote = kNo;
  } else if (!memory.ok()) {
    vote = absl::StrCat(kNoBecause, memory.status().message());
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> votes,
                      Exchange(&Rendezvous::VoteKey, std::move(vote)));
  if (std::string why = Count(votes); !why.empty())
    return NoShmGroup{std::move(why)};
  return *std::move(memory);
}

absl::Status Rendezvous::Look() {
  // Also how a store that was cancelled says so.
  SP_RETURN_IF_ERROR(store_.Check({HostKey(rank_)}).status());
  for (const int rank : awaited_) {
    // A rank that votes before it has come can only have given up.
    SP_ASSIGN_OR_RETURN(const bool voted, store_.Check({VoteKey(rank)}));
    if (voted) return GivenUp();
  }
  return absl::OkStatus();
}

absl::Status Rendezvous::Await(absl::Span<const int> sockets) {
  while (!AwaitReadable(sockets, std::min(kLook, Remaining()))) {
    SP_RETURN_IF_ERROR(Look());
    if (Remaining() > std::chrono::milliseconds(0)) continue;
    return MakeError(
        absl::StatusCode::kDeadlineExceeded,
        absl::StrCat("shared memory: expected the other ranks of "
                     "the group within ",
                     options_.timeout.count(), " ms, got: nothing"),
        {.reason = "PEER_LATE", .metadata = {}});
  }
  return absl::OkStatus();
}

absl::StatusOr<Packet> Rendezvous::Receive(const FileDescriptor& socket) {
  for (;;) {
    SP_ASSIGN_OR_RETURN(std::optional<Packet> packet, ReceivePacket(socket));
    if (packet.has_value()) return *std::move(packet);
    SP_RETURN_IF_ERROR(Await({socket.get()}));
  }
}

absl::StatusOr<ShmGroupMemory> Rendezvous::Offer() {
  const auto make = [&]() -> absl::StatusOr<std::shared_ptr<ShmSegment>> {
    return ShmSegment::Create(
        {.ranks = size_, .slot_bytes = options_.slot_bytes});
  };
  auto segment = make();
  auto lines = MakePeerLines(size_);
  auto listener = ListenLocally(size_);
  absl::Status made = segment.status();
  made.Update(lines.status());
  made.Update(listener.status());
  // Without an address the others wait no longer.
  SP_RETURN_IF_ERROR(
      store_.Set(AddressKey(), made.ok() ? listener->name : kNo));
  SP_RETURN_IF_ERROR(made);
  const absl::Status served = ServeAll(*listener, **segment, *lines);
  if (!served.ok()) {
    // For those who find nobody listening any more.
    SP_RETURN_IF_ERROR(store_.Set(AddressKey(), kNo));
    return served;
  }
  std::vector<FileDescriptor> watched;
  for (PeerLine& line : *lines) watched.push_back(std::move(line.watched));
  watched[0] = FileDescriptor();
  // The other ranks' own ends close here: from now on these alone hold them.
  return ShmGroupMemory{
      .segment = *std::move(segment),
      .watch = PeerWatch(std::move((*lines)[0].own), std::move(watched))};
}

absl::Status Rendezvous::ServeAll(const LocalListener& listener,
                                  const ShmSegment& segment,
                                  std::vector<PeerLine>& lines) {
  for (int rank = 1; rank < size_; ++rank) awaited_.push_back(rank);
  std::vector<FileDescriptor> visitors;
  while (!awaited_.empty()) {
    std::vector<int> sockets = {listener.socket.get()};
    for (const FileDescriptor& visitor : visitors)
      sockets.push_back(visitor.get());
    SP_RETURN_IF_ERROR(Await(sockets));
    SP_ASSIGN_OR_RETURN(std::optional<FileDescriptor> visitor,
                        AcceptLocal(listener.socket));
    if (visitor.has_value()) visitors.push_back(*std::move(visitor));
    std::vector<FileDescriptor> silent;
    for (FileDescriptor& each : visitors) {
      const auto heard = ReceivePacket(each);
      if (!heard.ok()) continue;  // it has gone again
      if (!heard->has_value()) {
        silent.push_back(std::move(each));
        continue;
      }
      const std::optional<Hello> hello = Unpack<Hello>((*heard)->bytes);
      const auto found = std::find(awaited_.begin(), awaited_.end(),
                                   hello.has_value() ? hello->rank : 0);
      if (found == awaited_.end()) return Unexpected("a rank of the group");
      // From now on its socket says how it fares: it may vote, for all that is
      // well, before its last word has been read.
      awaited_.erase(found);
      SP_RETURN_IF_ERROR(Serve(each, hello->rank, segment, lines));
    }
    visitors = std::move(silent);
  }
  return absl::OkStatus();
}

absl::Status Rendezvous::Serve(const FileDescriptor& visitor, int rank,
                               const ShmSegment& segment,
                               std::vector<PeerLine>& lines) {
  std::vector<int> files = {segment.file(), lines[rank].own.get()};
  for (int other = 0; other < size_; ++other) {
    if (other != rank) files.push_back(lines[other].watched.get());
  }
  const SegmentOffer offer = {.ranks = size_,
                              .slot_bytes = segment.sizes().slot_bytes};
  SP_RETURN_IF_ERROR(SendPacket(visitor, {Pack(offer)}, files));
  // One after the other: the system limits how many files may be on their way.
  SP_ASSIGN_OR_RETURN(const Packet answer, Receive(visitor));
  return answer.bytes == kTaken ? absl::OkStatus() : Unexpected(kTaken);
}

absl::StatusOr<FileDescriptor> Rendezvous::Connect() {
  absl::StatusOr<FileDescriptor> socket = GivenUp();
  // Once more after a failure: rank 0 may have given up in between.
  for (int i = 0; i < 2 && !socket.ok(); ++i) {
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> address,
                        store_.Get({AddressKey()}, Remaining()));
    if (address[0] == kNo) return GivenUp();
    socket = ConnectLocally(address[0]);
  }
  return socket;
}

absl::StatusOr<ShmGroupMemory> Rendezvous::Visit() {
  SP_ASSIGN_OR_RETURN(const FileDescriptor socket, Connect());
  SP_RETURN_IF_ERROR(SendPacket(socket, {Pack(Hello{.rank = rank_})}, {}));
  SP_ASSIGN_OR_RETURN(Packet packet, Receive(socket));
  SP_ASSIGN_OR_RETURN(ShmGroupMemory memory, Take(std::move(packet)));
  SP_RETURN_IF_ERROR(SendPacket(socket, {kTaken}, {}));
  return memory;
}

absl::StatusOr<ShmGroupMemory> Rendezvous::Take(Packet packet) {
  const auto offer = Unpack<SegmentOffer>(packet.bytes);
  // The memory, the own end and those of the others.
  if (!offer.has_value() || offer->ranks != size_ ||
      packet.files.size() != 1 + static_cast<size_t>(size_)) {
    return Unexpected("the group's memory and lines");
  }
  std::vector<FileDescriptor>& files = packet.files;
  SP_ASSIGN_OR_RETURN(
      std::shared_ptr<ShmSegment> segment,
      ShmSegment::Map(std::move(files[0]), {.ranks = offer->ranks,
                                            .slot_bytes = offer->slot_bytes}));
  std::vector<FileDescriptor> watched(size_);
  for (int other = 0, next = 2; other < size_; ++other) {
    if (other != rank_) watched[other] = std::move(files[next++]);
  }
  return ShmGroupMemory{
      .segment = std::move(segment),
      .watch = PeerWatch(std::move(files[1]), std::move(watched))};
}

}  // namespace

absl::StatusOr<std::variant<ShmGroupMemory, NoShmGroup>> JoinShmGroup(
    GangStore& store, const std::string& prefix, int rank, int size,
    const ShmRendezvousOptions& options) {
  return Rendezvous(store, prefix, rank, size, options).Join();
}

}  // namespace shardplane
