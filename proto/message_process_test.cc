#include "proto/message_process.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstddef>
#include <cstdlib>

namespace shardplane {
namespace {

// Blocks that came from the system one by one. Address sanitizers, which have
// memory of their own, count none.
size_t SystemBlocksWith(size_t bytes) {
  void* const block = std::malloc(bytes);
  const size_t blocks = mallinfo2().hblks;
  std::free(block);
  return blocks;
}

TEST(MessageProcessTest, MemoryOfMessagesStays) {
  SetUpMessageProcess();
  const size_t before = mallinfo2().hblks;
  EXPECT_EQ(SystemBlocksWith(4 << 20), before);
  const size_t kept = mallinfo2().arena;
  EXPECT_EQ(SystemBlocksWith(4 << 20), before);
  EXPECT_EQ(mallinfo2().arena, kept);
}

}  // namespace
}  // namespace shardplane
