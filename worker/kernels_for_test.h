// Kernels for tests: of the device that DeviceForTest names, and counted.
#ifndef SHARDPLANE_WORKER_KERNELS_FOR_TEST_H_
#define SHARDPLANE_WORKER_KERNELS_FOR_TEST_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "c10/core/DispatchKey.h"
#include "gtest/gtest.h"
#include "worker/cuda_support.h"
#include "worker/device_for_test.h"
#include "worker/fused_kernels.h"
#include "worker/kernels/host_kernels.h"
#include "worker/kernels/launcher.h"

namespace shardplane {

// On a CPU the host's. Else those of the GPU, from a test that links
// worker/nccl_group; where this build has none, their error.
inline absl::StatusOr<KernelLauncher*> KernelsForTest() {
  const c10::Device device(DeviceForTest(0));
  if (device.is_cpu()) return &HostKernels();
  return FindCudaSupport()->kernels(device);
}

class CountingLauncher : public KernelLauncher {
 public:
  explicit CountingLauncher(KernelLauncher* kernels) : kernels_(kernels) {}

#define SHARDPLANE_RUN(name, Args, Body)                                 \
  absl::Status Launch(Element element, int64_t blocks, const Args& args) \
      override {                                                         \
    ++launches_;                                                         \
    return kernels_->Launch(element, blocks, args);                      \
  }
  SHARDPLANE_KERNELS(SHARDPLANE_RUN)
  SHARDPLANE_ROW_KERNELS(SHARDPLANE_RUN)
#undef SHARDPLANE_RUN

  int Take() { return std::exchange(launches_, 0); }

 private:
  KernelLauncher* const kernels_;
  int launches_ = 0;
};

// Those that run, from now on and for the whole process.
inline CountingLauncher& KernelsInUse() {
  static auto* const kernels = [] {
    const auto found = KernelsForTest();
    auto* const counting =
        new CountingLauncher(found.ok() ? *found : &HostKernels());
    EXPECT_TRUE(found.ok()) << found.status();
    UseFusedKernels(counting, c10::Device(DeviceForTest(0)).is_cpu()
                                  ? c10::DispatchKey::CPU
                                  : c10::DispatchKey::CUDA);
    return counting;
  }();
  return *kernels;
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_FOR_TEST_H_
