#include "worker/cuda_kernels.h"

#include <memory>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/cuda/CUDAContext.h"
#include "ATen/ops/empty.h"
#include "c10/core/DeviceGuard.h"
#include "worker/kernels/driver_kernels.h"

namespace shardplane {

absl::StatusOr<KernelLauncher*> CudaKernels(c10::Device device) {
  static auto* const loaded = new auto([&] {
    const c10::DeviceGuard guard(device);
    // Makes the GPU's context the thread's.
    at::empty({1}, at::dtype(at::kByte).device(device));
    return LoadDriverKernels(
        {.image = FusedImage(), .stream = []() -> void* {
           return at::cuda::getCurrentCUDAStream().stream();
         }});
  }());
  if (!loaded->ok()) return loaded->status();
  return (*loaded)->get();
}

}  // namespace shardplane
