#include "worker/device_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "worker/cuda_support.h"
#include "worker/tensor_memory.h"

namespace shardplane {
namespace {

constexpr const char* kLimits[] = {
    "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};

// The number that a file begins with; 0: there is none ("max").
int64_t NumberIn(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number ? number : 0;
}

int64_t HostMemory(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  while (file >> key >> kibibytes) {
    if (key == "MemTotal:") return kibibytes * 1024;
    file.ignore(256, '\n');
  }
  return 0;
}

constexpr char kGpu[] = "cuda:";

// nullopt: no GPU, or in a binary for CPUs.
std::optional<int> GpuIndex(absl::string_view device) {
  int index = 0;
  if (FindCudaSupport() == nullptr || !absl::ConsumePrefix(&device, kGpu) ||
      !absl::SimpleAtoi(device, &index)) {
    return std::nullopt;
  }
  return index;
}

}  // namespace

int64_t MemoryLimit(const std::string& root) {
  int64_t limit = HostMemory(root);
  for (const char* path : kLimits) {
    const int64_t number = NumberIn(root + path);
    if (number > 0 && (limit == 0 || number < limit)) limit = number;
  }
  return limit;
}

DeviceMemory MeasureDeviceMemory(const std::string& device) {
  if (!absl::StartsWith(device, kGpu)) {
    return {MeasureTensorMemory().now, MemoryLimit()};
  }
  const std::optional<int> index = GpuIndex(device);
  if (!index.has_value()) return {};
  const auto [used, total] = FindCudaSupport()->memory(*index);
  return {used, total};
}

std::string GpuUuidOf(const std::string& device) {
  const std::optional<int> index = GpuIndex(device);
  return index.has_value() ? FindCudaSupport()->uuid(*index) : "";
}

}  // namespace shardplane
