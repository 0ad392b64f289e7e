#include "worker/shm/handover.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr std::chrono::seconds kLong(60);

// Both ends of a connection.
class HandoverTest : public ::testing::Test {
 protected:
  HandoverTest()
      : listener_(ListenForHandover(/*backlog=*/4).value()),
        near_(ConnectForHandover(listener_.name).value()),
        far_(*std::move(AcceptForHandover(listener_.socket).value())) {}

  HandoverListener listener_;
  FileDescriptor near_;
  FileDescriptor far_;
};

TEST_F(HandoverTest, FilesArriveOpenAndCloseOnExec) {
  FileDescriptor file(memfd_create("test", 0));
  ASSERT_EQ(write(file.get(), "text", 4), 4);
  ASSERT_THAT(SendHandover(near_, "two files", {file.get(), file.get()}),
              IsOk());
  auto received = ReceiveHandover(far_);
  ASSERT_THAT(received, IsOk());
  ASSERT_TRUE(received->has_value());
  EXPECT_EQ((*received)->bytes, "two files");
  ASSERT_EQ((*received)->files.size(), 2u);
  for (const FileDescriptor& each : (*received)->files) {
    EXPECT_NE(fcntl(each.get(), F_GETFD) & FD_CLOEXEC, 0);
    char text[4];
    EXPECT_EQ(pread(each.get(), text, 4, 0), 4);
    EXPECT_EQ(std::string(text, 4), "text");
  }
}

TEST_F(HandoverTest, AsManyFilesAsAreAllowed) {
  std::vector<int> files(kMaxHandoverFiles, near_.get());
  ASSERT_THAT(SendHandover(near_, "x", files), IsOk());
  const auto received = ReceiveHandover(far_);
  ASSERT_THAT(received, IsOk());
  EXPECT_EQ((*received)->files.size(), files.size());
  files.push_back(near_.get());
  EXPECT_THAT(SendHandover(near_, "x", files),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("129 files, 1 bytes: too much")));
}

TEST_F(HandoverTest, MessagesStayApart) {
  ASSERT_THAT(SendHandover(near_, "first", {}), IsOk());
  ASSERT_THAT(SendHandover(near_, "second", {}), IsOk());
  EXPECT_EQ((*ReceiveHandover(far_))->bytes, "first");
  EXPECT_EQ((*ReceiveHandover(far_))->bytes, "second");
}

TEST_F(HandoverTest, NothingCalledWaits) {
  EXPECT_FALSE(AcceptForHandover(listener_.socket).value().has_value());
  const auto received = ReceiveHandover(far_);
  ASSERT_THAT(received, IsOk());
  EXPECT_FALSE(received->has_value());
  EXPECT_FALSE(AwaitReadable({far_.get()}, std::chrono::milliseconds(0)));
}

TEST_F(HandoverTest, WhatComesAndWhoLeavesIsReadable) {
  ASSERT_THAT(SendHandover(near_, "x", {}), IsOk());
  EXPECT_TRUE(AwaitReadable({listener_.socket.get(), far_.get()}, kLong));
  ASSERT_THAT(ReceiveHandover(far_), IsOk());
  near_ = FileDescriptor();
  EXPECT_TRUE(AwaitReadable({far_.get()}, kLong));
  EXPECT_THAT(ReceiveHandover(far_),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("got: a closed connection")));
  EXPECT_THAT(SendHandover(far_, "x", {}),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("hand over files; got: ")));
}

TEST_F(HandoverTest, OneWhoWasNotAcceptedIsToldOfTheEnd) {
  const FileDescriptor waiting = ConnectForHandover(listener_.name).value();
  listener_.socket = FileDescriptor();
  EXPECT_TRUE(AwaitReadable({waiting.get()}, kLong));
  EXPECT_THAT(ReceiveHandover(waiting),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("closed")));
}

TEST_F(HandoverTest, FilesThatNobodyTakesAreClosed) {
  // A pipe's reader sees its end once the last copy of the writer is gone.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const FileDescriptor reader(ends[0]);
  FileDescriptor writer(ends[1]);
  ASSERT_THAT(SendHandover(near_, "x", {writer.get()}), IsOk());
  writer = FileDescriptor();
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), -1);
  far_ = FileDescriptor();
  EXPECT_EQ(read(reader.get(), &byte, 1), 0);
}

TEST(HandoverNamesTest, AreRandomAndEndWithTheSocket) {
  auto one = ListenForHandover(1);
  ASSERT_THAT(one, IsOk());
  EXPECT_THAT(one->name, MatchesRegex("[0-9a-f]{32}"));
  EXPECT_NE(one->name, ListenForHandover(1)->name);
  EXPECT_THAT(ConnectForHandover(one->name), IsOk());
  one->socket = FileDescriptor();
  EXPECT_THAT(ConnectForHandover(one->name),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("got: Connection refused")));
}

}  // namespace
}  // namespace shardplane
