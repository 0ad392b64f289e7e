#include "ipc/shared_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

FileDescriptor CopyOf(const SharedBytes& shared) {
  return FileDescriptor(fcntl(shared.file(), F_DUPFD_CLOEXEC, 0));
}

TEST(SharedBytes, AreThePartsInARow) {
  const std::string large(1 << 20, 'x');
  std::vector<absl::string_view> parts = {"", "a", large, "", "b"};
  // More than the system takes at once.
  for (int i = 0; i < 200; ++i) parts.push_back("cd");
  const auto shared = SharedBytes::Create(parts);
  ASSERT_THAT(shared, IsOk());

  const auto mapped = MappedBytes::Map(CopyOf(*shared));
  ASSERT_THAT(mapped, IsOk());
  std::string expected;
  for (const absl::string_view part : parts) absl::StrAppend(&expected, part);
  EXPECT_EQ(mapped->bytes(), expected);
}

TEST(SharedBytes, MayBeNone) {
  const auto shared = SharedBytes::Create({});
  ASSERT_THAT(shared, IsOk());
  EXPECT_EQ(MappedBytes::Map(CopyOf(*shared))->bytes(), "");
}

TEST(SharedBytes, StayWhileSomebodySeesThem) {
  auto shared = SharedBytes::Create({"text"});
  ASSERT_THAT(shared, IsOk());
  auto mapped = MappedBytes::Map(CopyOf(*shared));
  shared = absl::CancelledError();
  const MappedBytes moved = *std::move(mapped);
  EXPECT_EQ(moved.bytes(), "text");
}

TEST(SharedBytes, NobodyChangesThem) {
  const auto shared = SharedBytes::Create({"text"});
  ASSERT_THAT(shared, IsOk());
  EXPECT_EQ(pwrite(shared->file(), "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(shared->file(), 0), -1);
}

TEST(SharedBytes, OfAFileThatMayShrinkAreRefused) {
  FileDescriptor file(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(write(file.get(), "text", 4), 4);
  EXPECT_THAT(MappedBytes::Map(file),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("expected to map a sealed file")));
  ASSERT_EQ(fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_THAT(MappedBytes::Map(file),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("seals")));
}

}  // namespace
}  // namespace shardplane
