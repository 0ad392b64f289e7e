// Ranks that are processes, and die.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/local_socket.h"
#include "worker/executor.h"
#include "worker/shm/channel.h"
#include "worker/shm/open_files_for_test.h"
#include "worker/shm/rendezvous.h"

namespace shardplane {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Clock = std::chrono::steady_clock;  // one for all processes

constexpr int kRanks = 4;

// A store in memory that processes share, with what a rendezvous calls.
class SharedGangStore : public GangStore {
 public:
  SharedGangStore()
      : table_(static_cast<Table*>(mmap(nullptr, sizeof(Table),
                                        PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&table_->mutex, &mutex);
    pthread_condattr_t changed;
    pthread_condattr_init(&changed);
    pthread_condattr_setpshared(&changed, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&table_->changed, &changed);
  }
  ~SharedGangStore() override { munmap(table_, sizeof(Table)); }

  absl::Status Set(const std::string& key, std::string value) override {
    pthread_mutex_lock(&table_->mutex);
    Entry& entry = table_->entries[table_->count++];
    std::strncpy(entry.key, key.c_str(), sizeof(entry.key) - 1);
    std::strncpy(entry.value, value.c_str(), sizeof(entry.value) - 1);
    pthread_cond_broadcast(&table_->changed);
    pthread_mutex_unlock(&table_->mutex);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> Get(
      const std::vector<std::string>& keys,
      std::chrono::milliseconds) override {
    std::vector<std::string> values;
    pthread_mutex_lock(&table_->mutex);
    for (const std::string& key : keys) {
      const Entry* entry = nullptr;
      while ((entry = Find(key)) == nullptr)
        pthread_cond_wait(&table_->changed, &table_->mutex);
      values.emplace_back(entry->value);
    }
    pthread_mutex_unlock(&table_->mutex);
    return values;
  }
  std::vector<std::string> Values() const {
    std::vector<std::string> values;
    for (int i = 0; i < table_->count; ++i) {
      values.emplace_back(table_->entries[i].value);
    }
    return values;
  }
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    pthread_mutex_lock(&table_->mutex);
    bool all = true;
    for (const std::string& key : keys) all = all && Find(key) != nullptr;
    pthread_mutex_unlock(&table_->mutex);
    return all;
  }

  absl::StatusOr<int64_t> Add(const std::string&, int64_t) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::string> CompareSet(const std::string&, const std::string&,
                                         const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<bool> Delete(const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<int64_t> NumKeys() override { return table_->count; }
  void Cancel() override {}

 private:
  struct Entry {
    char key[64];
    char value[128];
  };
  struct Table {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int count;
    Entry entries[64];
  };

  const Entry* Find(const std::string& key) const {
    for (int i = table_->count - 1; i >= 0; --i) {
      if (key == table_->entries[i].key) return &table_->entries[i];
    }
    return nullptr;
  }

  Table* const table_;
};

// What a rank says through the pipe.
struct Said {
  int rank = 0;
  bool good = false;
  Clock::time_point when;
};

// Ranks that have joined a group, each a process that calls `body`, says
// through a pipe whether all went well, and stays until it is killed.
class Processes {
 public:
  using Body = std::function<bool(int rank, ShmGroupMemory& memory)>;

  explicit Processes(const Body& body) {
    EXPECT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    for (int rank = 0; rank < kRanks; ++rank) {
      pids_.push_back(fork());
      if (pids_.back() == 0) Be(rank, body);
    }
    for (int rank = 0; rank < kRanks; ++rank) EXPECT_TRUE(Listen().good);
  }
  ~Processes() {
    for (int rank = 0; rank < kRanks; ++rank) Kill(rank);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
    close(pipe_[0]);
    close(pipe_[1]);
  }

  // What they have told each other.
  std::vector<std::string> Told() const { return store_.Values(); }
  void Kill(int rank) { kill(pids_[rank], SIGKILL); }
  Said Listen() {
    Said said;
    EXPECT_EQ(read(pipe_[0], &said, sizeof(said)), ssize_t{sizeof(said)});
    return said;
  }

 private:
  [[noreturn]] void Be(int rank, const Body& body) {
    alarm(60);  // a test that hangs fails
    auto joined = JoinShmGroup(store_, "group", rank, kRanks, {});
    const bool together =
        joined.ok() && std::holds_alternative<ShmGroupMemory>(*joined);
    Say(rank, together);
    if (together) Say(rank, body(rank, std::get<ShmGroupMemory>(*joined)));
    for (;;) pause();
  }
  void Say(int rank, bool good) {
    const Said said{rank, good, Clock::now()};
    if (write(pipe_[1], &said, sizeof(said)) != ssize_t{sizeof(said)}) abort();
  }

  SharedGangStore store_;
  int pipe_[2];
  std::vector<pid_t> pids_;
};

// Of the machine's local sockets, those with one of these names.
std::vector<std::string> LocalSockets(const std::vector<std::string>& names) {
  std::vector<std::string> found;
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    for (const std::string& name : names) {
      if (absl::EndsWith(line, absl::StrCat("@shardplane-", name))) {
        found.push_back(name);
      }
    }
  }
  return found;
}

// Kills that rank and hears from all others; how long the last one took.
std::chrono::microseconds KillAndListen(Processes& processes, int victim) {
  const Clock::time_point killed = Clock::now();
  processes.Kill(victim);
  Clock::duration slowest{0};
  for (int i = 1; i < kRanks; ++i) {
    const Said said = processes.Listen();
    EXPECT_TRUE(said.good) << "rank " << said.rank;
    slowest = std::max(slowest, said.when - killed);
  }
  return std::chrono::duration_cast<std::chrono::microseconds>(slowest);
}

class RendezvousProcessTest : public ::testing::TestWithParam<int> {
 protected:
  // Generous: other processes may have the cores.
  static void ExpectSoon(std::chrono::microseconds slowest) {
    RecordProperty("slowest_us", static_cast<int>(slowest.count()));
    std::printf("noticed by all after %d us\n",
                static_cast<int>(slowest.count()));
    EXPECT_LT(slowest, std::chrono::seconds(1));
  }
};

TEST_P(RendezvousProcessTest, ADeathIsSeenByAllOthers) {
  const int victim = GetParam();
  Processes processes([victim](int rank, ShmGroupMemory& memory) {
    if (rank == victim) pause();
    while (!memory.watch.Gone(victim)) sched_yield();
    for (int other = 0; other < kRanks; ++other) {
      if (other != victim && memory.watch.Gone(other)) return false;
    }
    return true;
  });
  ExpectSoon(KillAndListen(processes, victim));
}

TEST_P(RendezvousProcessTest, ADeathEndsAWait) {
  const int victim = GetParam();
  Processes processes([victim](int rank, ShmGroupMemory& memory) {
    if (rank == victim) pause();
    ShmChannel channel(std::move(memory.segment), std::move(memory.watch),
                       {.rank = rank,
                        .timeout = std::chrono::minutes(10),
                        .patience = DefaultPatience(kRanks)});
    ShmTargets all(kRanks);
    std::byte bytes[kRanks];
    for (int i = 0; i < kRanks; ++i) all[i] = {&bytes[i], 1};
    const auto ticket = channel.Start({.kind = ShmKind::kShare,
                                       .sources = {{&bytes[rank], 1}},
                                       .targets = all,
                                       .longest = 1});
    const auto info = GetErrorInfo(channel.Wait(*ticket));
    return info.has_value() && info->reason == "PEER_GONE" &&
           info->metadata.at("rank") == std::to_string(victim);
  });
  ExpectSoon(KillAndListen(processes, victim));
}

INSTANTIATE_TEST_SUITE_P(Victims, RendezvousProcessTest,
                         ::testing::Range(0, kRanks));

TEST(RendezvousProcessesTest, NothingIsLeftOfProcessesThatWereKilled) {
  const size_t files = OpenFiles();
  {
    Processes processes(
        [](int, ShmGroupMemory&) { return !HasNamedSharedMemory(); });
    // Nobody finds what they have joined through any more.
    EXPECT_THAT(processes.Told(), Contains(SizeIs(32)));  // 128 random bits
    EXPECT_THAT(LocalSockets(processes.Told()), IsEmpty());
  }
  EXPECT_EQ(OpenFiles(), files);
}

TEST(LocalSocketsTest, AreFoundByTheirNames) {
  const absl::StatusOr<LocalListener> listener = ListenLocally(1);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_THAT(LocalSockets({"other", listener->name}),
              ElementsAre(listener->name));
}

}  // namespace
}  // namespace shardplane
