#include "worker/block_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace shardplane {
namespace {

using Usage = BlockCache::Usage;

constexpr int64_t kMegabyte = int64_t{1} << 20;

TEST(BlockCacheSizes, AreTheSmallestThatHaveRoom) {
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(1)), 64);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(64)), 64);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(65)), 128);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(1024)), 1024);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(1025)), 1024 + 128);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(4 * kMegabyte)),
            4 * kMegabyte);
  EXPECT_EQ(BlockCache::SizeOf(BlockCache::IndexOf(4 * kMegabyte + 1)),
            4 * kMegabyte + kMegabyte / 2);
  EXPECT_EQ(BlockCache::IndexOf(size_t{1} << 47), BlockCache::kSizes - 1);
  EXPECT_EQ(BlockCache::IndexOf((size_t{1} << 47) + 1), -1);
  EXPECT_EQ(BlockCache::IndexOf(SIZE_MAX), -1);
}

TEST(BlockCacheSizes, RiseAndAreTheirOwn) {
  for (int index = 0; index < BlockCache::kSizes; ++index) {
    const int64_t size = BlockCache::SizeOf(index);
    EXPECT_EQ(size % 64, 0);
    EXPECT_EQ(BlockCache::IndexOf(size), index);
    if (index == 0) continue;
    const int64_t smaller = BlockCache::SizeOf(index - 1);
    EXPECT_LT(smaller, size);
    EXPECT_EQ(BlockCache::IndexOf(smaller + 1), index);
    // No more than an eighth, or 63 bytes, is wasted.
    EXPECT_LE(size - smaller, std::max<int64_t>(64, smaller / 8));
  }
}

TEST(BlockCache, BlocksAreAligned) {
  BlockCache cache;
  for (const size_t bytes : {1, 63, 64, 1000, 5000, 3'000'000}) {
    void* const block = cache.Allocate(bytes);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
    std::memset(block, 1, bytes);
    BlockCache::Free(block);
  }
}

TEST(BlockCache, WhatWasFreedLastIsUsedAgain) {
  BlockCache cache;
  void* const a = cache.Allocate(1000);
  void* const b = cache.Allocate(1024);
  EXPECT_NE(a, b);
  BlockCache::Free(a);
  BlockCache::Free(b);
  EXPECT_EQ(cache.Allocate(990), b);
  EXPECT_EQ(cache.Allocate(1000), a);
  void* const c = cache.Allocate(1000);
  EXPECT_NE(c, a);
  EXPECT_NE(c, b);
  for (void* const block : {a, b, c}) BlockCache::Free(block);
}

TEST(BlockCache, AnotherSizeIsAnotherBlock) {
  BlockCache cache;
  void* const a = cache.Allocate(1000);
  BlockCache::Free(a);
  void* const b = cache.Allocate(2000);
  EXPECT_NE(a, b);
  BlockCache::Free(b);
}

TEST(BlockCache, CountsBytes) {
  BlockCache cache;
  void* const a = cache.Allocate(1000);
  void* const b = cache.Allocate(60);
  EXPECT_EQ(cache.usage(), (Usage{.used = 1088, .kept = 0, .peak = 1088}));
  BlockCache::Free(a);
  EXPECT_EQ(cache.usage(), (Usage{.used = 64, .kept = 1024, .peak = 1088}));
  cache.Release();
  EXPECT_EQ(cache.usage(), (Usage{.used = 64, .kept = 0, .peak = 64}));
  BlockCache::Free(b);
}

TEST(BlockCache, CountsWhatWasAskedFor) {
  BlockCache cache;
  void* const a = cache.Allocate(1000);
  BlockCache::Free(cache.Allocate(60));
  EXPECT_EQ(cache.asked(), (BlockCache::Asked{.now = 1000, .most = 1060}));
  cache.ResetMark();
  EXPECT_EQ(cache.asked(), (BlockCache::Asked{.now = 1000, .most = 1000}));
  void* const b = cache.Allocate(990);  // of another block's 1024
  BlockCache::Free(a);
  EXPECT_EQ(cache.asked(), (BlockCache::Asked{.now = 990, .most = 1990}));
  BlockCache::Free(b);
  EXPECT_EQ(cache.asked().now, 0);
}

TEST(BlockCache, FreeingNothingIsFine) { BlockCache::Free(nullptr); }

// A new block of another size takes the place of what is kept.
TEST(BlockCache, KeepsNoMoreThanTheSlackBeyondThePeak) {
  BlockCache cache(/*slack=*/0);
  void* const large = cache.Allocate(8 * kMegabyte);
  void* const small = cache.Allocate(kMegabyte);
  BlockCache::Free(small);
  BlockCache::Free(large);
  // The peak is 9: 11.25 are allowed. 9 are kept, 2 come.
  void* const fits = cache.Allocate(2 * kMegabyte);
  EXPECT_EQ(cache.usage().kept, 9 * kMegabyte);
  // 3 more do not fit beside 9 and 2: the largest goes.
  void* const more = cache.Allocate(3 * kMegabyte);
  EXPECT_EQ(
      cache.usage(),
      (Usage{.used = 5 * kMegabyte, .kept = kMegabyte, .peak = 9 * kMegabyte}));
  BlockCache::Free(fits);
  BlockCache::Free(more);
}

TEST(BlockCache, TheSlackIsAddedToIt) {
  BlockCache cache(/*slack=*/kMegabyte);
  BlockCache::Free(cache.Allocate(4 * kMegabyte));
  // 5 and 1 are allowed, 4 are kept.
  BlockCache::Free(cache.Allocate(2 * kMegabyte));
  EXPECT_EQ(cache.usage().kept, 6 * kMegabyte);
  BlockCache::Free(cache.Allocate(kMegabyte));
  EXPECT_EQ(cache.usage().kept, 3 * kMegabyte);
}

TEST(BlockCache, WhatTheSystemDoesNotHaveIsNull) {
  BlockCache cache;
  void* const block = cache.Allocate(kMegabyte);
  BlockCache::Free(block);
  EXPECT_EQ(cache.Allocate(size_t{1} << 47), nullptr);
  EXPECT_EQ(cache.Allocate(SIZE_MAX), nullptr);
  // The first of the two gave back what was kept, in case that was enough.
  EXPECT_EQ(cache.usage().kept, 0);
  EXPECT_EQ(cache.usage().used, 0);
}

// Each block belongs to one user at a time: what it writes stays.
void Churn(BlockCache& cache, uint32_t seed) {
  std::mt19937 random(seed);
  struct Held {
    unsigned char* block;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Held> held;
  for (int i = 0; i < 20'000; ++i) {
    if (held.size() < 20 && random() % 2 == 0) {
      const size_t bytes = 1 + random() % 3000;
      auto* block = static_cast<unsigned char*>(cache.Allocate(bytes));
      const auto mark = static_cast<unsigned char>(random());
      std::memset(block, mark, bytes);
      held.push_back({block, bytes, mark});
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      const Held& one = held.back();
      for (const size_t at : {size_t{0}, one.bytes / 2, one.bytes - 1}) {
        ASSERT_EQ(one.block[at], one.mark);
      }
      BlockCache::Free(one.block);
      held.pop_back();
    }
  }
  for (const Held& one : held) BlockCache::Free(one.block);
}

TEST(BlockCache, ThreadsShareIt) {
  BlockCache cache;
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&cache, seed] { Churn(cache, seed); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cache.usage().used, 0);
}

}  // namespace
}  // namespace shardplane
