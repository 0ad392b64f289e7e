#include "ipc/link.h"

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One end, with the thread that runs it, and what has come.
class End : public Link::Handler {
 public:
  explicit End(FileDescriptor socket, bool reads_all = true)
      : link_(std::move(socket)), reads_all_(reads_all) {
    if (reads_all_) link_.ReadOn();
    thread_ = std::thread([this] {
      absl::Status status = link_.Run(*this);
      absl::MutexLock lock(&mutex_);
      status_ = std::move(status);
      over_ = true;
    });
  }
  ~End() override {
    link_.Close();
    thread_.join();
  }

  Link& link() { return link_; }

  void OnMessage(absl::string_view bytes, absl::string_view rest) override {
    {
      absl::MutexLock lock(&mutex_);
      came_.push_back(absl::StrCat(bytes, rest));
    }
    if (reads_all_) link_.ReadOn();
  }
  void OnSent() override {
    absl::MutexLock lock(&mutex_);
    ++sent_;
  }

  // Once there are so many.
  std::vector<std::string> Messages(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return came_.size() >= count || over_;
    };
    mutex_.Await(absl::Condition(&enough));
    return came_;
  }
  void AwaitSent(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return sent_ >= count || over_;
    };
    mutex_.Await(absl::Condition(&enough));
  }
  // Of its end.
  absl::Status Status() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&over_));
    return status_;
  }

 private:
  Link link_;
  const bool reads_all_;
  absl::Mutex mutex_;
  std::vector<std::string> came_ ABSL_GUARDED_BY(mutex_);
  int sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// Both sockets of a connection.
std::pair<FileDescriptor, FileDescriptor> Connection() {
  const LocalListener listener = ListenLocally(1).value();
  FileDescriptor near = ConnectLocally(listener.name).value();
  return {std::move(near), *AcceptLocal(listener.socket).value()};
}

TEST(Link, MessagesComeWholeAndInOrder) {
  auto [a, b] = Connection();
  End near(std::move(a));
  End far(std::move(b));
  const std::string large(100'000, 'x');
  const auto rest = std::make_shared<const SharedBytes>(
      SharedBytes::Create({"rest"}).value());
  EXPECT_EQ(near.link().Send({"a", "b"}), Link::Sent::kNow);
  EXPECT_EQ(near.link().Send({"a", large, "c"}), Link::Sent::kNow);
  EXPECT_EQ(near.link().Send({"head and "}, rest), Link::Sent::kNow);
  EXPECT_EQ(near.link().Send({""}), Link::Sent::kNow);
  EXPECT_THAT(far.Messages(4),
              ElementsAre("ab", "a" + large + "c", "head and rest", ""));
  EXPECT_EQ(far.link().Send({"answer"}), Link::Sent::kNow);
  EXPECT_THAT(near.Messages(1), ElementsAre("answer"));
}

TEST(Link, NoMoreThanWasAskedForIsRead) {
  auto [a, b] = Connection();
  End near(std::move(a));
  End far(std::move(b), /*reads_all=*/false);
  near.link().Send({"1"});
  near.link().Send({"2"});
  near.link().Send({"3"});
  far.link().ReadOn();
  EXPECT_THAT(far.Messages(1), ElementsAre("1"));
  far.link().ReadOn();
  EXPECT_THAT(far.Messages(2), ElementsAre("1", "2"));
}

TEST(Link, WhatFindsNoRoomIsSentLater) {
  auto [a, b] = Connection();
  End near(std::move(a));
  End far(std::move(b), /*reads_all=*/false);
  const std::string message(Link::kMaxInline, 'x');
  size_t count = 0;
  Link::Sent sent = Link::Sent::kNow;
  while (sent == Link::Sent::kNow && count < 1000) {
    sent = near.link().Send({message});
    ++count;
  }
  ASSERT_EQ(sent, Link::Sent::kLater);
  for (size_t i = 1; i <= count; ++i) {
    far.link().ReadOn();
    EXPECT_EQ(far.Messages(i).size(), i);
  }
  near.AwaitSent(1);
  EXPECT_EQ(near.link().Send({"next"}), Link::Sent::kNow);
  far.link().ReadOn();
  EXPECT_EQ(far.Messages(count + 1).back(), "next");
}

TEST(Link, EndsOnBothSidesWhenOneCloses) {
  auto [a, b] = Connection();
  End near(std::move(a));
  End far(std::move(b));
  near.link().Send({"last"});
  near.link().Close();
  EXPECT_THAT(near.Status(), IsOk());
  EXPECT_THAT(far.Status(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("closed")));
  EXPECT_THAT(far.Messages(1), ElementsAre("last"));
  EXPECT_EQ(near.link().Send({"x"}), Link::Sent::kNever);
  EXPECT_EQ(far.link().Send({"x"}), Link::Sent::kNever);
}

TEST(Link, EndsWhileNothingIsRead) {
  auto [a, b] = Connection();
  End far(std::move(b), /*reads_all=*/false);
  a = FileDescriptor();
  EXPECT_THAT(far.Status(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("closed")));
}

TEST(Link, FilesThatAreNotSealedEndIt) {
  auto [a, b] = Connection();
  End far(std::move(b));
  const LocalListener other = ListenLocally(1).value();
  ASSERT_THAT(SendPacket(a, {"m"}, {other.socket.get()}), IsOk());
  EXPECT_THAT(far.Status(), StatusIs(absl::StatusCode::kUnavailable,
                                     HasSubstr("expected to map a sealed")));
}

// Two threads send through each end while it is read.
TEST(Link, CarriesBothDirectionsAtOnce) {
  auto [a, b] = Connection();
  End near(std::move(a));
  End far(std::move(b));
  constexpr int kMessages = 2000;
  const auto send = [](End& end) {
    std::mt19937 random(7);
    int later = 0;
    for (int i = 0; i < kMessages; ++i) {
      const std::string message(1 + random() % 3000, 'x');
      if (end.link().Send({message, absl::StrCat(" ", i)}) ==
          Link::Sent::kLater) {
        end.AwaitSent(++later);
      }
    }
  };
  std::thread there([&] { send(near); });
  send(far);
  there.join();
  for (End* const end : {&near, &far}) {
    const std::vector<std::string> came = end->Messages(kMessages);
    ASSERT_EQ(came.size(), kMessages);
    for (int i = 0; i < kMessages; ++i) {
      ASSERT_THAT(came[i], testing::EndsWith(absl::StrCat("x ", i)));
    }
  }
}

}  // namespace
}  // namespace shardplane
