#include "worker/shm/channel.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Of the transfers by which ranks tell each other sizes.
constexpr uint64_t kTellingSignature = 0x7e111465;

uint64_t OthersOf(int rank, int ranks) {
  const uint64_t all =
      ranks == kMaxShmRanks ? ~uint64_t{0} : (uint64_t{1} << ranks) - 1;
  return all & ~(uint64_t{1} << rank);
}

// What ranks compare before they use each other's data; never 0.
uint64_t Tag(const ShmTransfer& transfer) {
  uint64_t tag = transfer.signature;
  for (const uint64_t part : {static_cast<uint64_t>(transfer.kind),
                              static_cast<uint64_t>(transfer.longest),
                              static_cast<uint64_t>(transfer.reducer.id)}) {
    tag = (absl::rotl(tag, 23) ^ part) * 0x9e3779b97f4a7c15;
  }
  return tag | 1;
}

bool Reduces(ShmKind kind) {
  return kind != ShmKind::kShare && kind != ShmKind::kExchange;
}

absl::Status DoesNotFit(absl::string_view expected) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("transfer: expected ", expected, ", got: other parts"),
      {.reason = "TRANSFER_PARTS", .metadata = {}});
}

absl::Status PeerGone(int rank) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("shared memory: expected rank ", rank,
                   " of the group, got: it has died or left"),
      {.reason = "PEER_GONE", .metadata = {{"rank", std::to_string(rank)}}});
}

absl::Status PeerLate(int rank, std::chrono::milliseconds timeout) {
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("shared memory: expected rank ", rank,
                   " of the group within ", timeout.count(),
                   " ms, got: nothing"),
      {.reason = "PEER_LATE", .metadata = {{"rank", std::to_string(rank)}}});
}

absl::Status CollectivesDiffer(int rank) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("shared memory: expected the same collective on all ranks "
                   "of the group, got: another one on rank ",
                   rank),
      {.reason = "COLLECTIVES_DIFFER",
       .metadata = {{"rank", std::to_string(rank)}}});
}

absl::Status Aborted() {
  return MakeError(absl::StatusCode::kUnavailable,
                   "shared memory: expected a whole group, got: Abort",
                   {.reason = "ABORTED", .metadata = {}});
}

}  // namespace

ShmChannel::ShmChannel(std::shared_ptr<const ShmSegment> segment,
                       PeerWatch watch, const Options& options)
    : segment_(std::move(segment)),
      watch_(std::move(watch)),
      rank_(options.rank),
      others_(OthersOf(options.rank, segment_->sizes().ranks)),
      timeout_(options.timeout),
      waiter_(options.patience) {}

ShmChannel::~ShmChannel() {
  control(rank_).left.store(1);
  RingOthers();
}

absl::Status ShmChannel::Check(const ShmTransfer& transfer) const {
  const size_t ranks = size();
  const size_t sources = transfer.sources.size();
  const size_t targets = transfer.targets.size();
  const bool exchange = transfer.kind == ShmKind::kExchange ||
                        transfer.kind == ShmKind::kExchangeReduce;
  if (!Reduces(transfer.kind)) {
    const size_t own = exchange ? ranks : 1;
    if ((sources != 0 && sources != own) || (targets != 0 && targets != ranks))
      return DoesNotFit("sources and targets as the kind has them, or none");
    if (targets > 0 && transfer.targets[rank_].bytes > 0 && sources == 0)
      return DoesNotFit("data for this rank's own target");
    return absl::OkStatus();
  }
  if (sources != (exchange ? ranks : 1) || targets != 1 ||
      transfer.reducer.function == nullptr || transfer.longest < 0) {
    return DoesNotFit("a reducer, all sources and one target");
  }
  const ShmSource& own = transfer.sources[exchange ? rank_ : 0];
  const ShmTarget& target = transfer.targets[0];
  const int64_t element_bytes = transfer.reducer.element_bytes;
  if (own.bytes != target.bytes || target.bytes % element_bytes != 0)
    return DoesNotFit("a target of the size of this rank's source");
  if (own.run_bytes % element_bytes != 0 ||
      target.run_bytes % element_bytes != 0) {
    return DoesNotFit("runs of whole elements");
  }
  return absl::OkStatus();
}

absl::StatusOr<ShmChannel::Ticket> ShmChannel::Start(ShmTransfer transfer) {
  SP_RETURN_IF_ERROR(broken_);
  SP_RETURN_IF_ERROR(Check(transfer));
  if (transfer.longest < 0) {
    int64_t longest = 0;
    for (const ShmSource& source : transfer.sources)
      longest = std::max(longest, source.bytes);
    EnqueueTelling(longest);
  }
  CoreBalance::Note(*segment_, rank_);
  Enqueue(std::move(transfer), ++last_ticket_);
  SP_RETURN_IF_ERROR(Progress(last_ticket_).status());
  return last_ticket_;
}

void ShmChannel::Enqueue(ShmTransfer transfer, Ticket ticket) {
  if (spare_.empty()) spare_.emplace_back();
  queue_.splice(queue_.end(), spare_, spare_.begin());
  Running& running = queue_.back();
  running.ticket = ticket;
  running.transfer = std::move(transfer);
  running.told = nullptr;
  running.schedule.reset();
}

void ShmChannel::EnqueueTelling(int64_t longest) {
  auto told = std::make_unique<std::vector<int64_t>>(size());
  (*told)[rank_] = longest;
  const auto bytes = [&](int rank) {
    return reinterpret_cast<std::byte*>(&(*told)[rank]);
  };
  ShmTransfer transfer{.kind = ShmKind::kShare,
                       .sources = {{bytes(rank_), sizeof(int64_t)}},
                       .targets = {},
                       .reducer = {},
                       .longest = sizeof(int64_t),
                       .signature = kTellingSignature};
  for (int rank = 0; rank < size(); ++rank) {
    transfer.targets.push_back({bytes(rank), sizeof(int64_t)});
  }
  Enqueue(std::move(transfer), last_ticket_);  // done with the one before
  queue_.back().told = std::move(told);
}

absl::Status ShmChannel::Wait(Ticket ticket,
                              std::chrono::milliseconds timeout) {
  SP_RETURN_IF_ERROR(broken_);
  for (;;) {
    SP_ASSIGN_OR_RETURN(const bool done, Progress(ticket));
    if (done) return absl::OkStatus();
    SP_RETURN_IF_ERROR(AwaitFirst(timeout));
  }
}

absl::StatusOr<bool> ShmChannel::Test(Ticket ticket) {
  SP_RETURN_IF_ERROR(broken_);
  SP_ASSIGN_OR_RETURN(const bool done, Progress(ticket));
  if (done) return true;
  // Also for one who only asks, never waits.
  const absl::Status status = CheckPeers(ConditionOf(queue_.front()));
  if (!status.ok()) return Break(status);
  return false;
}

void ShmChannel::Abort() {
  aborted_.store(true);
  control(rank_).left.store(1);
  RingOthers();
  RingIfAsleep(control(rank_));
}

absl::Status ShmChannel::Break(absl::Status status) {
  broken_ = std::move(status);
  control(rank_).left.store(1);
  RingOthers();
  return broken_;
}

void ShmChannel::RingOthers() {
  for (int rank = 0; rank < size(); ++rank) {
    if (rank != rank_) RingIfAsleep(control(rank));
  }
}

absl::StatusOr<bool> ShmChannel::Progress(Ticket ticket) {
  if (aborted_.load()) return Break(Aborted());
  auto running = queue_.begin();
  while (done_ < ticket && running != queue_.end()) {
    SP_ASSIGN_OR_RETURN(const bool go_on, ProgressOne(*running));
    if (queue_.front().schedule.has_value() &&
        queue_.front().schedule->done()) {
      FinishFirst();
      running = queue_.begin();
    } else if (go_on) {
      ++running;
    } else {
      break;
    }
  }
  return done_ >= ticket;
}

absl::StatusOr<bool> ShmChannel::ProgressOne(Running& running) {
  if (!running.schedule.has_value()) {
    if (running.transfer.longest < 0) return false;
    Begin(running);
  }
  ShmSchedule& schedule = *running.schedule;
  // Chunks are consumed in order: a later transfer only publishes for now.
  while (!schedule.done() &&
         (&running == &queue_.front() || schedule.step() == ShmStep::kWrite)) {
    const Condition condition = ConditionOf(running);
    if (Lagging(condition) != 0) break;
    const absl::Status same = CheckTags(running, condition);
    if (!same.ok()) return Break(same);
    Execute(running);
    schedule.Advance();
  }
  return schedule.all_published();
}

void ShmChannel::Begin(Running& running) {
  const ShmTransfer& transfer = running.transfer;
  running.schedule.emplace(ChunkCount(transfer, segment_->sizes()),
                           HasReduceStep(transfer.kind)
                               ? ShmSchedule::Reduce::kYes
                               : ShmSchedule::Reduce::kNo);
  running.first_publication = next_publication_;
  running.first_chunk = next_chunk_;
  next_publication_ += running.schedule->publications();
  next_chunk_ += running.schedule->chunks();
}

void ShmChannel::FinishFirst() {
  const Running& running = queue_.front();
  spare_.splice(spare_.end(), queue_, queue_.begin());
  done_ = running.ticket;
  if (running.told != nullptr) {
    queue_.front().transfer.longest =
        *std::max_element(running.told->begin(), running.told->end());
  }
}

void ShmChannel::Execute(Running& running) {
  const ShmSchedule& schedule = *running.schedule;
  const ShmChunk chunk{.transfer = &running.transfer,
                       .segment = segment_.get(),
                       .rank = rank_,
                       .index = schedule.chunk(),
                       .sequence = running.first_chunk + schedule.chunk()};
  switch (schedule.step()) {
    case ShmStep::kWrite:
      WriteChunk(chunk);
      return Publish(running);
    case ShmStep::kReduce:
      ReduceChunk(chunk);
      return Publish(running);
    case ShmStep::kRead:
      ReadChunk(chunk);
      control(rank_).consumed.store(chunk.sequence + 1);
      return RingOthers();
  }
}

void ShmChannel::Publish(const Running& running) {
  ShmControl& own = control(rank_);
  const uint64_t number = own.published.load(std::memory_order_relaxed);
  own.tags[number % kShmTags].store(Tag(running.transfer),
                                    std::memory_order_relaxed);
  own.published.store(number + 1);
  RingOthers();
}

ShmChannel::Condition ShmChannel::ConditionOf(const Running& running) const {
  const ShmSchedule& schedule = *running.schedule;
  const int64_t chunk = schedule.chunk();
  switch (schedule.step()) {
    case ShmStep::kWrite: {
      const uint64_t end = running.first_chunk + chunk + 1;
      return {&ShmControl::consumed, end > kShmSlots ? end - kShmSlots : 0,
              others_};
    }
    case ShmStep::kReduce:
      return {&ShmControl::published,
              running.first_publication + schedule.WritePublication(chunk) + 1,
              others_};
    case ShmStep::kRead:
      return {&ShmControl::published,
              running.first_publication + schedule.LastPublication(chunk) + 1,
              PeersRead(running.transfer, segment_->sizes(), rank_)};
  }
  return {};
}

uint64_t ShmChannel::Lagging(const Condition& condition) {
  uint64_t lagging = 0;
  for (uint64_t left = condition.ranks; left != 0; left &= left - 1) {
    const int rank = absl::countr_zero(left);
    if (condition.counter == &ShmControl::consumed) {
      // The line is the other rank's; mostly the last look is enough.
      uint64_t& seen = consumed_[rank];
      if (seen < condition.value) seen = control(rank).consumed.load();
      if (seen >= condition.value) continue;
    } else if ((control(rank).*condition.counter).load() >= condition.value) {
      continue;
    }
    lagging |= uint64_t{1} << rank;
  }
  return lagging;
}

absl::Status ShmChannel::CheckTags(const Running& running,
                                   const Condition& condition) const {
  if (condition.counter != &ShmControl::published) return absl::OkStatus();
  const uint64_t expected = Tag(running.transfer);
  for (uint64_t left = condition.ranks; left != 0; left &= left - 1) {
    const int rank = absl::countr_zero(left);
    const uint64_t tag =
        control(rank).tags[(condition.value - 1) % kShmTags].load(
            std::memory_order_relaxed);
    if (tag != expected) return CollectivesDiffer(rank);
  }
  return absl::OkStatus();
}

absl::Status ShmChannel::CheckPeers(const Condition& condition) {
  if (aborted_.load()) return Aborted();
  for (uint64_t left = Lagging(condition); left != 0; left &= left - 1) {
    const int rank = absl::countr_zero(left);
    if (control(rank).left.load() == 0 && !watch_.Gone(rank)) continue;
    // What it did before it went is there.
    if ((control(rank).*condition.counter).load() < condition.value) {
      return PeerGone(rank);
    }
  }
  return absl::OkStatus();
}

absl::Status ShmChannel::AwaitFirst(std::chrono::milliseconds timeout) {
  using Clock = std::chrono::steady_clock;
  const Condition condition = ConditionOf(queue_.front());
  const auto ready = [&] { return Lagging(condition) == 0 || aborted_.load(); };
  const Clock::time_point deadline = Clock::now() + timeout;
  for (;;) {
    balance_.Look(*segment_, rank_);
    waiter_.AwaitOnce(control(rank_), ready);
    const uint64_t lagging = Lagging(condition);
    if (lagging == 0) return absl::OkStatus();
    const absl::Status status = CheckPeers(condition);
    if (!status.ok()) return Break(status);
    if (Clock::now() >= deadline) {
      return Break(PeerLate(absl::countr_zero(lagging), timeout));
    }
  }
}

}  // namespace shardplane
