#include "worker/tensor_memory.h"

#include <atomic>
#include <cstddef>

#include "c10/core/Allocator.h"
#include "c10/core/CPUAllocator.h"
#include "c10/util/Exception.h"
#include "worker/block_cache.h"

namespace shardplane {
namespace {

// Lives as long as the process: tensors may be freed by its last destructors.
BlockCache& Blocks() {
  static auto* const blocks = new BlockCache();
  return *blocks;
}

class TensorAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const block = bytes == 0 ? nullptr : Blocks().Allocate(bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, block != nullptr || bytes == 0,
                     "memory of a tensor: expected ", bytes,
                     " bytes, got: none");
    return {block, block, &BlockCache::Free, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &BlockCache::Free; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

std::atomic<bool> kept = false;

}  // namespace

void KeepTensorMemory() {
  static auto* const allocator = new TensorAllocator();
  c10::SetCPUAllocator(allocator, /*priority=*/1);
  kept = true;
}

TensorMemory MeasureTensorMemory() {
  if (!kept) return {};
  const BlockCache::Asked asked = Blocks().asked();
  return {.now = asked.now, .most = asked.most};
}

void ResetTensorMemoryMark() {
  if (kept) Blocks().ResetMark();
}

void ReleaseTensorMemory() {
  if (kept) Blocks().Release();
}

}  // namespace shardplane
