#include "ipc/local_socket.h"

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
class LocalSocketTest : public ::testing::Test {
 protected:
  LocalSocketTest()
      : listener_(ListenLocally(/*backlog=*/4).value()),
        near_(ConnectLocally(listener_.name).value()),
        far_(*std::move(AcceptLocal(listener_.socket).value())) {}

  LocalListener listener_;
  FileDescriptor near_;
  FileDescriptor far_;
};

TEST_F(LocalSocketTest, FilesArriveOpenAndCloseOnExec) {
  FileDescriptor file(memfd_create("test", 0));
  ASSERT_EQ(write(file.get(), "text", 4), 4);
  ASSERT_THAT(SendPacket(near_, {"two files"}, {file.get(), file.get()}),
              IsOk());
  auto received = ReceivePacket(far_);
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

TEST_F(LocalSocketTest, AsManyFilesAsAreAllowed) {
  std::vector<int> files(kMaxPacketFiles, near_.get());
  ASSERT_THAT(SendPacket(near_, {"x"}, files), IsOk());
  const auto received = ReceivePacket(far_);
  ASSERT_THAT(received, IsOk());
  EXPECT_EQ((*received)->files.size(), files.size());
  files.push_back(near_.get());
  EXPECT_THAT(SendPacket(near_, {"x"}, files),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("129 files, 1 bytes in 1 parts: too much")));
}

TEST_F(LocalSocketTest, MessagesStayApart) {
  ASSERT_THAT(SendPacket(near_, {"first"}, {}), IsOk());
  ASSERT_THAT(SendPacket(near_, {"second"}, {}), IsOk());
  EXPECT_EQ((*ReceivePacket(far_))->bytes, "first");
  EXPECT_EQ((*ReceivePacket(far_))->bytes, "second");
}

TEST_F(LocalSocketTest, NothingCalledWaits) {
  EXPECT_FALSE(AcceptLocal(listener_.socket).value().has_value());
  const auto received = ReceivePacket(far_);
  ASSERT_THAT(received, IsOk());
  EXPECT_FALSE(received->has_value());
  EXPECT_FALSE(AwaitReadable({far_.get()}, std::chrono::milliseconds(0)));
}

TEST_F(LocalSocketTest, WhatComesAndWhoLeavesIsReadable) {
  ASSERT_THAT(SendPacket(near_, {"x"}, {}), IsOk());
  EXPECT_TRUE(AwaitReadable({listener_.socket.get(), far_.get()}, kLong));
  ASSERT_THAT(ReceivePacket(far_), IsOk());
  near_ = FileDescriptor();
  EXPECT_TRUE(AwaitReadable({far_.get()}, kLong));
  EXPECT_THAT(ReceivePacket(far_),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("got: a closed connection")));
  EXPECT_THAT(SendPacket(far_, {"x"}, {}),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("send a packet; got: ")));
}

TEST_F(LocalSocketTest, OneWhoWasNotAcceptedIsToldOfTheEnd) {
  const FileDescriptor waiting = ConnectLocally(listener_.name).value();
  listener_.socket = FileDescriptor();
  EXPECT_TRUE(AwaitReadable({waiting.get()}, kLong));
  EXPECT_THAT(ReceivePacket(waiting),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("closed")));
}

TEST_F(LocalSocketTest, FilesThatNobodyTakesAreClosed) {
  // A pipe's reader sees its end once the last copy of the writer is gone.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const FileDescriptor reader(ends[0]);
  FileDescriptor writer(ends[1]);
  ASSERT_THAT(SendPacket(near_, {"x"}, {writer.get()}), IsOk());
  writer = FileDescriptor();
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), -1);
  far_ = FileDescriptor();
  EXPECT_EQ(read(reader.get(), &byte, 1), 0);
}

TEST_F(LocalSocketTest, PartsAreOnePacket) {
  const std::string most(kMaxPacketBytes - 2, 'x');
  ASSERT_THAT(SendPacket(near_, {"a", most, "b"}, {}), IsOk());
  EXPECT_EQ((*ReceivePacket(far_))->bytes, "a" + most + "b");
  EXPECT_THAT(SendPacket(near_, {"a", most, "bc"}, {}),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("32769 bytes in 3 parts: too much")));
}

TEST_F(LocalSocketTest, WhatFindsNoRoomIsNotSent) {
  const std::string bytes(kMaxPacketBytes, 'x');
  int sent = 0;
  absl::Status status;
  while ((status = SendPacket(near_, {bytes}, {})).ok() && sent < 1000) ++sent;
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("it is full")));
  EXPECT_GE(sent, 2);
  ASSERT_THAT(ReceivePacket(far_), IsOk());
  EXPECT_THAT(SendPacket(near_, {bytes}, {}), IsOk());
}

TEST(LocalNamesTest, AreRandomAndEndWithTheSocket) {
  auto one = ListenLocally(1);
  ASSERT_THAT(one, IsOk());
  EXPECT_THAT(one->name, MatchesRegex("[0-9a-f]{32}"));
  EXPECT_NE(one->name, ListenLocally(1)->name);
  EXPECT_THAT(ConnectLocally(one->name), IsOk());
  one->socket = FileDescriptor();
  EXPECT_THAT(ConnectLocally(one->name),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("got: Connection refused")));
}

TEST(LocalNamesTest, MayBeChosenAndAreNotSharedThen) {
  auto one = ListenLocally("a name of the test's own", 1);
  ASSERT_THAT(one, IsOk());
  EXPECT_THAT(ConnectLocally("a name of the test's own"), IsOk());
  EXPECT_THAT(ListenLocally(one->name, 1),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("got: Address already in use")));
}

}  // namespace
}  // namespace shardplane
