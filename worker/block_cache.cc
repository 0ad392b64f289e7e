#include "worker/block_cache.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace shardplane {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int kSmallSizes = 16;  // 64 to 1024
constexpr int kSmallestPower = 10;
constexpr int kSteps = 8;  // from one power of two to the next

}  // namespace

int64_t BlockCache::SizeOf(int index) {
  if (index < kSmallSizes) return (index + 1) * kAlignment;
  const int power = kSmallestPower + (index - kSmallSizes) / kSteps;
  const int64_t step = (index - kSmallSizes) % kSteps + 1;
  return (int64_t{1} << power) + (step << power) / kSteps;
}

int BlockCache::IndexOf(size_t bytes) {
  if (bytes > static_cast<size_t>(SizeOf(kSizes - 1))) return -1;
  const int64_t last = static_cast<int64_t>(bytes) - 1;
  if (last < kSmallSizes * kAlignment) {
    return static_cast<int>(last / kAlignment);
  }
  const int power = std::bit_width(static_cast<uint64_t>(last)) - 1;
  const int64_t above = last - (int64_t{1} << power);
  return kSmallSizes + (power - kSmallestPower) * kSteps +
         static_cast<int>((above * kSteps) >> power);
}

BlockCache::Header* BlockCache::TakeKept(int index) {
  Header* const header = kept_[index];
  if (header == nullptr) return nullptr;
  kept_[index] = header->next;
  usage_.kept -= SizeOf(index);
  return header;
}

void BlockCache::ShrinkTo(int64_t limit) {
  for (int index = kSizes - 1; usage_.kept > limit && index >= 0; --index) {
    while (usage_.kept > limit) {
      Header* const header = TakeKept(index);
      if (header == nullptr) break;
      std::free(header);
    }
  }
}

void* BlockCache::Use(Header* header, size_t bytes) {
  header->bytes = static_cast<int64_t>(bytes);
  asked_.now += header->bytes;
  asked_.most = std::max(asked_.most, asked_.now);
  usage_.used += SizeOf(header->index);
  usage_.peak = std::max(usage_.peak, usage_.used);
  return header + 1;
}

void* BlockCache::Allocate(size_t bytes) {
  const int index = IndexOf(bytes);
  if (index < 0) return nullptr;
  const int64_t size = SizeOf(index);
  absl::MutexLock lock(&mutex_);
  if (Header* const kept = TakeKept(index)) return Use(kept, bytes);
  const int64_t used = usage_.used + size;
  const int64_t peak = std::max(usage_.peak, used);
  ShrinkTo(std::max<int64_t>(0, peak + peak / 4 + slack_ - used));
  const size_t whole = sizeof(Header) + size;
  void* memory = std::aligned_alloc(kAlignment, whole);
  if (memory == nullptr) {
    ShrinkTo(0);
    memory = std::aligned_alloc(kAlignment, whole);
  }
  if (memory == nullptr) return nullptr;
  return Use(
      new (memory)
          Header{.owner = this, .next = nullptr, .index = index, .bytes = 0},
      bytes);
}

void BlockCache::Keep(Header* header) {
  absl::MutexLock lock(&mutex_);
  const int64_t size = SizeOf(header->index);
  asked_.now -= header->bytes;
  usage_.used -= size;
  usage_.kept += size;
  header->next = kept_[header->index];
  kept_[header->index] = header;
}

void BlockCache::Free(void* block) {
  if (block == nullptr) return;
  Header* const header = static_cast<Header*>(block) - 1;
  header->owner->Keep(header);
}

void BlockCache::Release() {
  absl::MutexLock lock(&mutex_);
  ShrinkTo(0);
  usage_.peak = usage_.used;
}

BlockCache::Usage BlockCache::usage() const {
  absl::MutexLock lock(&mutex_);
  return usage_;
}

BlockCache::Asked BlockCache::asked() const {
  absl::MutexLock lock(&mutex_);
  return asked_;
}

void BlockCache::ResetMark() {
  absl::MutexLock lock(&mutex_);
  asked_.most = asked_.now;
}

}  // namespace shardplane
