// Ranks as processes, which are killed in the middle of their collectives.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/shm/channel.h"
#include "worker/shm/channel_for_test.h"
#include "worker/shm/peer_watch.h"
#include "worker/shm/segment.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

constexpr int kRanks = 4;
constexpr int64_t kSlotBytes = 4096;

// What a rank writes into its pipe, whole or not at all.
struct Note {
  enum What : int32_t { kUnderWay, kEnded } what = kUnderWay;
  int32_t code = 0;      // of the status that ended it
  int64_t ended_ns = 0;  // on the clock that all processes share
};

int64_t NowNs() { return Clock::now().time_since_epoch().count(); }

// Collectives until one fails; what the last one said.
absl::Status CollectivesUntilTheEnd(ShmChannel& channel, uint64_t seed,
                                    int pipe) {
  std::mt19937_64 shared(seed);
  for (int i = 0;; ++i) {
    CollectiveOfRank mine(RandomCollective(kRanks, 1000, shared()),
                          channel.rank());
    const auto ticket = channel.Start(mine.transfer());
    if (!ticket.ok()) return ticket.status();
    const absl::Status status = channel.Wait(*ticket);
    if (!status.ok()) return status;
    if (mine.received() != mine.expected()) {
      return absl::DataLossError("a collective gave a wrong result");
    }
    const Note note{.what = Note::kUnderWay};
    if (i == 20 && write(pipe, &note, sizeof(note)) != sizeof(note)) {
      return absl::InternalError("the test has gone");
    }
  }
}

// The processes of one group; this process is none of its ranks.
class Processes {
 public:
  explicit Processes(uint64_t seed) {
    auto lines = MakePeerLines(kRanks);
    EXPECT_THAT(lines, IsOk());
    lines_ = *std::move(lines);
    segment_ = MakeSegment(kRanks, kSlotBytes);
    for (int rank = 0; rank < kRanks; ++rank) Spawn(rank, seed);
    // They alone hold memory and lines from now on.
    lines_.clear();
    segment_.reset();
    for (int rank = 0; rank < kRanks; ++rank) {
      EXPECT_EQ(Read(rank).what, Note::kUnderWay);
    }
  }

  ~Processes() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }

  int64_t Kill(int rank) {
    const int64_t at = NowNs();
    kill(pids_[rank], SIGKILL);
    return at;
  }

  // Its memory, a line each.
  std::string Maps(int rank) const {
    std::ifstream file(absl::StrCat("/proc/", pids_[rank], "/maps"));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  Note Read(int rank) {
    Note note;
    EXPECT_EQ(read(pipes_[rank].get(), &note, sizeof(note)),
              static_cast<ssize_t>(sizeof(note)))
        << "rank " << rank;
    return note;
  }

 private:
  void Spawn(int rank, uint64_t seed) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    FileDescriptor reading(ends[0]);
    FileDescriptor writing(ends[1]);
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) RunRank(rank, seed, writing.get());
    pids_.push_back(pid);
    pipes_.push_back(std::move(reading));
  }

  [[noreturn]] void RunRank(int rank, uint64_t seed, int pipe) {
    FileDescriptor own;
    std::vector<FileDescriptor> others(kRanks);
    for (int i = 0; i < kRanks; ++i) {
      if (i == rank) {
        own = std::move(lines_[i].own);
      } else {
        others[i] = std::move(lines_[i].watched);
      }
    }
    lines_.clear();  // the other ranks' own ends above all
    ShmChannel channel(segment_, PeerWatch(std::move(own), std::move(others)),
                       {.rank = rank, .patience = DefaultPatience(kRanks)});
    const absl::Status status = CollectivesUntilTheEnd(channel, seed, pipe);
    const Note note{.what = Note::kEnded,
                    .code = static_cast<int32_t>(status.code()),
                    .ended_ns = NowNs()};
    _exit(write(pipe, &note, sizeof(note)) == sizeof(note) ? 0 : 1);
  }

  std::vector<PeerLine> lines_;
  std::shared_ptr<const ShmSegment> segment_;
  std::vector<pid_t> pids_;
  std::vector<FileDescriptor> pipes_;
};

// Every rank in its turn. On a loaded machine a single one may take longer, so
// the limit of 50 ms holds for the fastest, and seconds for all.
TEST(ShmProcesses, AKilledRankIsNoticedByAllOthers) {
  int64_t fastest = INT64_MAX;
  for (int round = 0; round < 2 * kRanks; ++round) {
    const int victim = round % kRanks;
    Processes processes(round);
    const int64_t killed = processes.Kill(victim);
    int64_t slowest = 0;
    for (int rank = 0; rank < kRanks; ++rank) {
      if (rank == victim) continue;
      const Note note = processes.Read(rank);
      EXPECT_EQ(note.what, Note::kEnded);
      EXPECT_EQ(static_cast<absl::StatusCode>(note.code),
                absl::StatusCode::kUnavailable);
      slowest = std::max(slowest, note.ended_ns - killed);
    }
    std::cout << "rank " << victim << " killed; the last of the others noticed "
              << "after " << slowest / 1000 << " us\n";
    EXPECT_LT(slowest, 5'000'000'000);
    fastest = std::min(fastest, slowest);
  }
  EXPECT_LT(fastest, 50'000'000);
}

// Memory without a name goes with the last process that has it.
TEST(ShmProcesses, MemoryHasNoNameThatCouldBeLeftBehind) {
  Processes processes(1);
  for (int rank = 0; rank < kRanks; ++rank) {
    const std::string maps = processes.Maps(rank);
    EXPECT_THAT(maps, HasSubstr("/memfd:shardplane (deleted)"));
    EXPECT_THAT(maps, Not(HasSubstr("/dev/shm/")));
  }
}

}  // namespace
}  // namespace shardplane
