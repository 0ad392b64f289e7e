// One rank's end of a group that shares memory: carries transfers out together
// with the channels of the other ranks.
#ifndef SHARDPLANE_WORKER_SHM_CHANNEL_H_
#define SHARDPLANE_WORKER_SHM_CHANNEL_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/shm/core_balance.h"
#include "worker/shm/moves.h"
#include "worker/shm/peer_watch.h"
#include "worker/shm/schedule.h"
#include "worker/shm/segment.h"
#include "worker/shm/transfer.h"
#include "worker/shm/waiting.h"

namespace shardplane {

// Every rank starts the same transfers in the same order. A transfer is cut
// into chunks, one a slot; each rank
//
//   writes its data into its slot           a publication
//   reduces its part of all slots           a publication, kReduceShare alone
//   reads what it wants from all slots      a consumption
//
// and tells the others by two counters, of its publications and of the chunks
// that it has consumed. A slot is written again when all have consumed the
// chunk that it held. The order of publications is fixed by the transfers, so
// a counter says exactly what has come. Several transfers may be under way:
// Start publishes what there is room for, Wait does the rest. While a rank
// waits in one group it does nothing for another: ranks that share several
// groups wait in the same order in all of them.
//
// Errors, after which the channel is broken and every call answers the same:
//   Unavailable, PEER_GONE: a process that is waited for has died or left;
//     noticed within some 10 ms of its death.
//   Unavailable, ABORTED: Abort was called.
//   DeadlineExceeded, PEER_LATE: another rank did not come in time.
//   FailedPrecondition, COLLECTIVES_DIFFER: ranks call different transfers.
// One thread at a time, except Abort.
class ShmChannel {
 public:
  struct Options {
    int rank = 0;
    // Of waiting for one chunk.
    std::chrono::milliseconds timeout{60'000};
    ShmPatience patience;
  };
  // A transfer's number, in the order of Start.
  using Ticket = uint64_t;

  // The segment is shared by ranks that are threads of one process.
  ShmChannel(std::shared_ptr<const ShmSegment> segment, PeerWatch watch,
             const Options& options);
  // Leaves: ranks that still wait for this one get PEER_GONE.
  ~ShmChannel();
  ShmChannel(const ShmChannel&) = delete;
  ShmChannel& operator=(const ShmChannel&) = delete;

  int rank() const { return rank_; }
  int size() const { return segment_->sizes().ranks; }

  // Buffers stay as they are until the transfer is done. InvalidArgument (and
  // nothing is broken): parts that do not fit the transfer's kind.
  absl::StatusOr<Ticket> Start(ShmTransfer transfer);
  // Until it is done, with all transfers started before it.
  absl::Status Wait(Ticket ticket) { return Wait(ticket, timeout_); }
  // With another timeout.
  absl::Status Wait(Ticket ticket, std::chrono::milliseconds timeout);
  // Goes on as far as possible without waiting; whether it is done.
  absl::StatusOr<bool> Test(Ticket ticket);

  // Ends what waits, here and on the other ranks; any thread.
  void Abort();

 private:
  struct Running {
    Ticket ticket = 0;
    ShmTransfer transfer;
    // By rank; where the transfer's end tells the next one's `longest`.
    std::unique_ptr<std::vector<int64_t>> told;
    // Once `longest` is known, here and for all transfers before.
    std::optional<ShmSchedule> schedule;
    uint64_t first_publication = 0;
    uint64_t first_chunk = 0;
  };
  // That a counter of some ranks (a bit each) has come up to `value`.
  struct Condition {
    std::atomic<uint64_t> ShmControl::*counter = nullptr;
    uint64_t value = 0;
    uint64_t ranks = 0;
  };

  ShmControl& control(int rank) const { return segment_->control(rank); }
  absl::Status Check(const ShmTransfer& transfer) const;
  void Enqueue(ShmTransfer transfer, Ticket ticket);
  void EnqueueTelling(int64_t longest);

  // Executes what is ready; whether that ticket's transfer is done.
  absl::StatusOr<bool> Progress(Ticket ticket);
  // Of one that is queued; whether later ones may publish.
  absl::StatusOr<bool> ProgressOne(Running& running);
  void Begin(Running& running);
  void FinishFirst();
  void Execute(Running& running);
  void Publish(const Running& running);
  void RingOthers();

  Condition ConditionOf(const Running& running) const;
  uint64_t Lagging(const Condition& condition);
  absl::Status CheckTags(const Running& running,
                         const Condition& condition) const;
  // Until the first transfer's next step can be taken.
  absl::Status AwaitFirst(std::chrono::milliseconds timeout);
  // OK while there is still hope for all of them.
  absl::Status CheckPeers(const Condition& condition);
  absl::Status Break(absl::Status status);

  const std::shared_ptr<const ShmSegment> segment_;
  const PeerWatch watch_;
  const int rank_;
  const uint64_t others_;  // a bit each
  const std::chrono::milliseconds timeout_;
  ShmWaiter waiter_;
  CoreBalance balance_;

  std::atomic<bool> aborted_ = false;
  absl::Status broken_;
  std::list<Running> queue_;
  std::list<Running> spare_;  // of the transfers before: their memory
  Ticket last_ticket_ = 0;
  Ticket done_ = 0;  // all up to it
  uint64_t next_publication_ = 0;
  uint64_t next_chunk_ = 0;
  // What each rank had consumed when last looked at.
  std::array<uint64_t, kMaxShmRanks> consumed_ = {};
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_CHANNEL_H_
