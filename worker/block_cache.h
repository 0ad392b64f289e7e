// Memory that is used again instead of given back to the system.
#ifndef SHARDPLANE_WORKER_BLOCK_CACHE_H_
#define SHARDPLANE_WORKER_BLOCK_CACHE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace shardplane {

// Blocks by size. A program asks for the same sizes run after run, so that
// after the first everything is at hand: in the caches of the processor often,
// and with pages that the system has already given, which costs more than
// filling them.
//
// What is kept never lets the whole grow much beyond what was in use at once:
// before a new block would, kept ones go, the largest first.
//
//   Allocate(1000) -> a, Free(a), Allocate(990) -> a again: both take 1024
//
// Thread-safe. Blocks must be freed before their cache ends.
class BlockCache {
 public:
  struct Usage {
    int64_t used = 0;  // bytes of blocks that are allocated, rounded up
    int64_t kept = 0;  // bytes of blocks that wait
    int64_t peak = 0;  // the highest `used` since Release
    bool operator==(const Usage&) const = default;
  };
  // `slack`: bytes that the whole may grow beyond 5/4 of the peak.
  explicit BlockCache(int64_t slack = int64_t{64} << 20) : slack_(slack) {}
  ~BlockCache() { Release(); }
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  // At least `bytes` > 0, aligned to 64. nullptr: the system has none, also
  // after all that was kept has gone.
  void* Allocate(size_t bytes);
  // What an Allocate, of whichever cache, returned; any thread.
  static void Free(void* block);

  // Gives back what is kept.
  void Release();
  Usage usage() const;

  // Bytes that were asked for, not rounded, of blocks that are allocated: now,
  // and the most since the last ResetMark.
  struct Asked {
    int64_t now = 0;
    int64_t most = 0;
    bool operator==(const Asked&) const = default;
  };
  Asked asked() const;
  void ResetMark();

  // Sizes rise by 64 bytes up to 1024, then in 8 steps to each next power of
  // two, up to 2^47. By number, from 0 on.
  static constexpr int kSizes = 16 + 8 * 37;
  static int64_t SizeOf(int index);
  // The smallest that has room; -1: none has.
  static int IndexOf(size_t bytes);

 private:
  struct alignas(64) Header {
    BlockCache* owner;
    Header* next;  // of those that wait
    int index;
    int64_t bytes;  // that were asked for
  };

  Header* TakeKept(int index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Until no more than `limit` bytes are kept.
  void ShrinkTo(int64_t limit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void* Use(Header* header, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(Header* header);

  const int64_t slack_;
  mutable absl::Mutex mutex_;
  std::array<Header*, kSizes> kept_ ABSL_GUARDED_BY(mutex_) = {};
  Usage usage_ ABSL_GUARDED_BY(mutex_);
  Asked asked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_BLOCK_CACHE_H_
