// Where LibTorch takes the memory of tensors from that lie on the host.
#ifndef SHARDPLANE_WORKER_TENSOR_MEMORY_H_
#define SHARDPLANE_WORKER_TENSOR_MEMORY_H_

#include <cstdint>

namespace shardplane {

// From now on a BlockCache (worker/block_cache) that lives as long as the
// process: tensors get memory that others have left. Tensors that there are
// already stay as they are. Without it LibTorch asks the system each time.
// Once is enough; any thread.
void KeepTensorMemory();

// Bytes of tensors on the host: those there are now, and the most at one time
// since ResetTensorMemoryMark. Any thread. 0 without KeepTensorMemory.
struct TensorMemory {
  int64_t now = 0;
  int64_t most = 0;
};
TensorMemory MeasureTensorMemory();
void ResetTensorMemoryMark();

// Gives back what no tensor uses, where what runs next will be of other sizes;
// any thread. Without KeepTensorMemory nothing.
void ReleaseTensorMemory();

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TENSOR_MEMORY_H_
