// How much memory a worker's device has, how much of it is taken, and who the
// device is.
#ifndef SHARDPLANE_WORKER_DEVICE_MEMORY_H_
#define SHARDPLANE_WORKER_DEVICE_MEMORY_H_

#include <cstdint>
#include <string>

namespace shardplane {

struct DeviceMemory {
  int64_t used = 0;   // by tensors of this process
  int64_t total = 0;  // of a CPU: what the process may take; 0: not known
};

// `device`: "cpu", "cuda:0", as CheckDevice gives it. Any thread.
DeviceMemory MeasureDeviceMemory(const std::string& device);

// Its name in NVML (worker/nvml), if it is a GPU that CUDA knows; else "".
std::string GpuUuidOf(const std::string& device);

// What this process may take of the host's memory: the smallest limit of its
// control groups (v2 or v1), else what the host has. `root` stands before the
// paths of /sys and /proc. 0: nothing can be read.
int64_t MemoryLimit(const std::string& root = "");

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DEVICE_MEMORY_H_
