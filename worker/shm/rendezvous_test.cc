#include "worker/shm/rendezvous.h"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/local_socket.h"
#include "tests/matchers.h"
#include "worker/fake_gang_store.h"
#include "worker/shm/open_files_for_test.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using Joined = absl::StatusOr<std::variant<ShmGroupMemory, NoShmGroup>>;

const HostIdentity kHere{
    .kernel = "1", .network = "net", .user = "1000", .layout = "1"};

// "memory", why there is none, or the error.
std::string Outcome(const Joined& joined) {
  if (!joined.ok()) return std::string(joined.status().message());
  const auto* none = std::get_if<NoShmGroup>(&*joined);
  return none == nullptr ? "memory" : none->why;
}
std::vector<std::string> Outcomes(const std::vector<Joined>& ranks) {
  std::vector<std::string> outcomes;
  for (const Joined& rank : ranks) outcomes.push_back(Outcome(rank));
  return outcomes;
}
const ShmGroupMemory& MemoryOf(const Joined& joined) {
  return std::get<ShmGroupMemory>(*joined);
}

// A store that answers another value than is in it for one key.
class LyingStore : public FakeGangStore {
 public:
  LyingStore(GangStore& store, std::string key, std::string value)
      : store_(store), key_(std::move(key)), value_(std::move(value)) {}

  absl::Status Set(const std::string& key, std::string value) override {
    return store_.Set(key, std::move(value));
  }
  absl::StatusOr<std::vector<std::string>> Get(
      const std::vector<std::string>& keys,
      std::chrono::milliseconds timeout) override {
    auto values = store_.Get(keys, timeout);
    if (values.ok() && keys == std::vector{key_}) (*values)[0] = value_;
    return values;
  }
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    return store_.Check(keys);
  }

 private:
  GangStore& store_;
  const std::string key_;
  const std::string value_;
};

// Ranks are threads. They must not take long to find an obstacle: a test that
// waited for the timeout would run out of its own time.
class RendezvousTest : public ::testing::Test {
 protected:
  using OptionsOf = std::function<ShmRendezvousOptions(int)>;

  static ShmRendezvousOptions Patient(int) {
    return {.timeout = std::chrono::hours(1)};
  }

  std::vector<Joined> Join(int size, const OptionsOf& options = Patient,
                           const std::string& prefix = "group") {
    std::vector<Joined> joined(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        GangStore& store =
            rank == lied_to_ ? static_cast<GangStore&>(*lying_) : store_;
        joined[rank] = JoinShmGroup(store, prefix, rank, size, options(rank));
      });
    }
    for (std::thread& thread : threads) thread.join();
    return joined;
  }

  // One of two ranks, beside another that the test plays.
  static Joined JoinHere(GangStore& store, int rank) {
    ShmRendezvousOptions options = Patient(rank);
    options.host = kHere;
    return JoinShmGroup(store, "group", rank, 2, options);
  }

  // What that rank reads under that key is not what was set.
  void LieTo(int rank, const std::string& key, const std::string& value) {
    lied_to_ = rank;
    lying_ = std::make_unique<LyingStore>(store_, key, value);
  }

  // A rank that the test plays: where it is, and its vote.
  void Play(int rank, const std::string& vote) {
    EXPECT_THAT(store_.Set(absl::StrCat("group/host/", rank), ToString(kHere)),
                IsOk());
    if (vote.empty()) return;
    EXPECT_THAT(store_.Set(absl::StrCat("group/vote/", rank), vote), IsOk());
  }

  FakeGangStore store_;
  int lied_to_ = -1;
  std::unique_ptr<LyingStore> lying_;
};

class RendezvousSizesTest : public RendezvousTest,
                            public ::testing::WithParamInterface<int> {};

TEST_P(RendezvousSizesTest, AllSeeTheSameMemory) {
  const int size = GetParam();
  const std::vector<Joined> ranks = Join(size);
  ASSERT_THAT(Outcomes(ranks), Each("memory"));
  for (int rank = 0; rank < size; ++rank) {
    const ShmSegment& own = *MemoryOf(ranks[rank]).segment;
    EXPECT_EQ(own.sizes().ranks, size);
    EXPECT_EQ(own.sizes().slot_bytes, 256 * 1024);
    own.slot(rank, 3)[5] = std::byte(rank + 1);
  }
  for (int rank = 0; rank < size; ++rank) {
    for (int from = 0; from < size; ++from) {
      EXPECT_EQ(MemoryOf(ranks[rank]).segment->slot(from, 3)[5],
                std::byte(from + 1));
    }
  }
}

TEST_P(RendezvousSizesTest, WhoLeavesIsGoneForAllOthers) {
  const int size = GetParam();
  std::vector<Joined> ranks = Join(size);
  ASSERT_THAT(Outcomes(ranks), Each("memory"));
  for (int left = 0; left < size; ++left) {
    for (int rank = left; rank < size; ++rank) {
      for (int other = 0; other < size; ++other) {
        EXPECT_EQ(MemoryOf(ranks[rank]).watch.Gone(other), other < left)
            << rank << " of " << other;
      }
    }
    ranks[left] = absl::UnknownError("left");
  }
}

TEST_P(RendezvousSizesTest, NothingStaysOpen) {
  const size_t before = OpenFiles();
  const size_t inherited = InheritedFiles();
  {
    const std::vector<Joined> ranks = Join(GetParam());
    ASSERT_THAT(Outcomes(ranks), Each("memory"));
    // On each rank: the memory, its own line and one of each other rank.
    const size_t size = GetParam();
    EXPECT_EQ(OpenFiles() - before, size * (1 + size));
    EXPECT_EQ(InheritedFiles(), inherited);
    EXPECT_FALSE(HasNamedSharedMemory());
  }
  EXPECT_EQ(OpenFiles(), before);
}

INSTANTIATE_TEST_SUITE_P(Ranks, RendezvousSizesTest,
                         ::testing::Values(1, 2, 3, 4, 12));

TEST_F(RendezvousTest, SlotsAreOfTheSizeThatRankZeroSays) {
  const std::vector<Joined> ranks = Join(2, [](int rank) {
    return ShmRendezvousOptions{.slot_bytes = rank == 0 ? 640 : 64};
  });
  ASSERT_THAT(Outcomes(ranks), Each("memory"));
  EXPECT_EQ(MemoryOf(ranks[1]).segment->sizes().slot_bytes, 640);
}

TEST_F(RendezvousTest, GroupsOfOneStoreStayApart) {
  constexpr int kGroups = 4;
  std::vector<std::vector<Joined>> groups(kGroups);
  std::vector<std::thread> threads;
  for (int group = 0; group < kGroups; ++group) {
    threads.emplace_back([&, group] {
      groups[group] = Join(3, Patient, absl::StrCat("group ", group));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int group = 0; group < kGroups; ++group) {
    ASSERT_THAT(Outcomes(groups[group]), Each("memory"));
    *MemoryOf(groups[group][0]).segment->slot(0, 0) = std::byte(group + 1);
  }
  for (int group = 0; group < kGroups; ++group) {
    EXPECT_EQ(*MemoryOf(groups[group][2]).segment->slot(0, 0),
              std::byte(group + 1));
  }
}

struct Apart {
  const char* name;
  std::string HostIdentity::*field;
  const char* why;
};
void PrintTo(const Apart& apart, std::ostream* out) { *out << apart.name; }

class RendezvousApartTest : public RendezvousTest,
                            public ::testing::WithParamInterface<Apart> {};

TEST_P(RendezvousApartTest, NothingIsTriedAndAllKnowWhy) {
  const size_t before = OpenFiles();
  const auto options = [](int rank) {
    ShmRendezvousOptions options = Patient(rank);
    options.host = kHere;
    if (rank == 2) (*options.host).*GetParam().field = "other";
    return options;
  };
  EXPECT_THAT(Outcomes(Join(4, options)), Each(GetParam().why));
  EXPECT_THAT(store_.Check({"group/address"}), IsOkAndHolds(false));
  EXPECT_EQ(OpenFiles(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Hosts, RendezvousApartTest,
    ::testing::Values(
        Apart{"kernel", &HostIdentity::kernel,
              "rank 2 of the group is on another machine than rank 0"},
        Apart{"network", &HostIdentity::network,
              "rank 2 of the group is in another network namespace than "
              "rank 0"},
        Apart{"user", &HostIdentity::user,
              "rank 2 of the group runs as another user than rank 0"},
        Apart{"layout", &HostIdentity::layout,
              "rank 2 of the group runs another version than rank 0"}),
    CaseName<Apart>);

TEST_F(RendezvousTest, ARankThatDoesNotWantIt) {
  const auto options = [](int rank) {
    ShmRendezvousOptions options = Patient(rank);
    if (rank == 1) options.unwilling = "--collectives=gloo";
    return options;
  };
  EXPECT_THAT(Outcomes(Join(3, options)),
              Each("rank 1 of the group: --collectives=gloo"));
}

TEST_F(RendezvousTest, AProgramThatSaysSomethingElseIsOfAnotherVersion) {
  ASSERT_THAT(store_.Set("group/host/1", "something else"), IsOk());
  // Who waited for rank 1 would not hang: its error is another one.
  ShmRendezvousOptions options{.timeout = std::chrono::seconds(5)};
  options.host =
      HostIdentity{.kernel = "", .network = "", .user = "", .layout = "1"};
  EXPECT_EQ(Outcome(JoinShmGroup(store_, "group", 0, 2, options)),
            "rank 1 of the group runs another version than rank 0");
}

TEST_F(RendezvousTest, RankZeroWithoutMemory) {
  const size_t before = OpenFiles();
  const auto options = [](int rank) {
    ShmRendezvousOptions options = Patient(rank);
    options.slot_bytes = 100;
    return options;
  };
  EXPECT_THAT(
      Outcomes(Join(4, options)),
      Each(AllOf(HasSubstr("rank 0 of the group: shared memory: expected"),
                 HasSubstr("got: 4 ranks, 100 bytes"),
                 Not(HasSubstr("rank 1")))));
  EXPECT_EQ(OpenFiles(), before);
}

TEST_F(RendezvousTest, ARankThatCannotConnect) {
  const size_t before = OpenFiles();
  LieTo(2, "group/address", "0123");
  EXPECT_THAT(Outcomes(Join(4)),
              Each("rank 2 of the group: local socket: expected to connect; "
                   "got: Connection refused"));
  EXPECT_EQ(OpenFiles(), before);
}

// Hands rank 1 a file and its lines, as rank 0 would.
void OfferTo(const FileDescriptor& visitor, int file, int32_t ranks,
             int64_t slot_bytes, int lines) {
  struct {
    int32_t ranks;
    int64_t slot_bytes;
  } const offer = {ranks, slot_bytes};
  std::vector<int> files(1 + lines, file);
  EXPECT_THAT(
      SendPacket(visitor,
                 {absl::string_view(reinterpret_cast<const char*>(&offer),
                                    sizeof(offer))},
                 files),
      IsOk());
}

TEST_F(RendezvousTest, ARankThatCannotMapWhatItGets) {
  const size_t before = OpenFiles();
  LocalListener listener = ListenLocally(1).value();
  Play(0, "no");
  ASSERT_THAT(store_.Set("group/address", listener.name), IsOk());
  Joined joined;
  std::thread rank([&] { joined = JoinHere(store_, 1); });
  ASSERT_TRUE(AwaitReadable({listener.socket.get()}, std::chrono::seconds(60)));
  {
    const auto visitor = AcceptLocal(listener.socket).value();
    const FileDescriptor unsealed(memfd_create("test", MFD_CLOEXEC));
    OfferTo(*visitor, unsealed.get(), 2, 64, /*lines=*/2);
    rank.join();
  }
  EXPECT_THAT(Outcome(joined),
              AllOf(HasSubstr("rank 1 of the group: shared memory: expected a "
                              "sealed segment"),
                    HasSubstr("got: 0 bytes")));
  listener.socket = FileDescriptor();
  EXPECT_EQ(OpenFiles(), before);
}

TEST_F(RendezvousTest, ARankThatGetsTooLittle) {
  const LocalListener listener = ListenLocally(1).value();
  Play(0, "no");
  ASSERT_THAT(store_.Set("group/address", listener.name), IsOk());
  Joined joined;
  std::thread rank([&] { joined = JoinHere(store_, 1); });
  ASSERT_TRUE(AwaitReadable({listener.socket.get()}, std::chrono::seconds(60)));
  const auto visitor = AcceptLocal(listener.socket).value();
  OfferTo(*visitor, listener.socket.get(), 2, 64, /*lines=*/1);
  rank.join();
  EXPECT_THAT(Outcome(joined), HasSubstr("expected the group's memory"));
}

// A store that does something once, when it is asked whether a key is there.
class BusyStore : public FakeGangStore {
 public:
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    if (armed.exchange(false)) meanwhile();
    return FakeGangStore::Check(keys);
  }

  std::atomic<bool> armed = false;
  std::function<void()> meanwhile;
};

// Rank 0 looks at the store while it waits for a rank's last word; in between
// that comes, and the rank's vote with it.
TEST_F(RendezvousTest, ARankThatVotesBeforeItsLastWordIsRead) {
  BusyStore store;
  ASSERT_THAT(store.Set("group/host/1", ToString(kHere)), IsOk());
  Joined joined;
  std::thread rank([&] { joined = JoinHere(store, 0); });
  const std::string name =
      store.Get({"group/address"}, std::chrono::seconds(60)).value()[0];
  const FileDescriptor socket = ConnectLocally(name).value();
  const int32_t hello = 1;
  ASSERT_THAT(
      SendPacket(socket,
                 {absl::string_view(reinterpret_cast<const char*>(&hello), 4)},
                 {}),
      IsOk());
  ASSERT_TRUE(AwaitReadable({socket.get()}, std::chrono::seconds(60)));
  store.meanwhile = [&] {
    EXPECT_THAT(SendPacket(socket, {"taken"}, {}), IsOk());
    EXPECT_THAT(store.Set("group/vote/1", "yes"), IsOk());
  };
  store.armed = true;
  rank.join();
  EXPECT_EQ(Outcome(joined), "memory");
}

TEST_F(RendezvousTest, AStrangerWhoKnowsTheName) {
  const size_t before = OpenFiles();
  Play(1, "");
  Joined joined;
  std::thread rank([&] { joined = JoinHere(store_, 0); });
  const std::string name =
      store_.Get({"group/address"}, std::chrono::seconds(60)).value()[0];
  {
    // Silent ones wait, one who goes is forgotten, nonsense ends it.
    const auto silent = ConnectLocally(name);
    ConnectLocally(name).value();
    const auto other = ConnectLocally(name);
    EXPECT_THAT(SendPacket(*other, {"nonsense"}, {}), IsOk());
    Play(1, "no");
    rank.join();
  }
  EXPECT_THAT(Outcome(joined),
              HasSubstr("rank 0 of the group: shared memory: expected a rank "
                        "of the group"));
  EXPECT_EQ(OpenFiles(), before);
}

TEST_F(RendezvousTest, ARankThatNeverComes) {
  const size_t before = OpenFiles();
  const ShmRendezvousOptions hasty{.timeout = std::chrono::milliseconds(20),
                                   .host = kHere};
  EXPECT_THAT(JoinShmGroup(store_, "group", 0, 2, hasty),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "a key did not "
                       "come"));
  // One who said where it is, and no more.
  Play(1, "");
  EXPECT_THAT(JoinShmGroup(store_, "group", 0, 2, hasty),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "a key did not "
                       "come"));
  EXPECT_THAT(store_.Get({"group/vote/0"}, std::chrono::seconds(0)),
              IsOkAndHolds(ElementsAre(HasSubstr(
                  "expected the other ranks of the group within 20 ms"))));
  EXPECT_EQ(OpenFiles(), before);
}

TEST_F(RendezvousTest, AGroupThatIsCancelled) {
  const size_t before = OpenFiles();
  Play(1, "");
  Joined joined;
  std::thread rank([&] { joined = JoinHere(store_, 0); });
  EXPECT_THAT(store_.Get({"group/address"}, std::chrono::seconds(60)), IsOk());
  store_.Cancel();
  rank.join();
  EXPECT_THAT(joined,
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("cancelled")));
  EXPECT_EQ(OpenFiles(), before);
}

}  // namespace
}  // namespace shardplane
