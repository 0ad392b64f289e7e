// The kernels on a GPU, through CUDA's driver, which is loaded by name: no
// binary links it.
#ifndef SHARDPLANE_WORKER_KERNELS_DRIVER_KERNELS_H_
#define SHARDPLANE_WORKER_KERNELS_DRIVER_KERNELS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/kernels/launcher.h"

namespace shardplane {

struct DriverKernelsOptions {
  // What nvcc made of fused.cu: a fat binary. FusedImage() of a build with it.
  absl::Span<const uint8_t> image;
  // The calling thread's current stream, a CUstream.
  std::function<void*()> stream;
  std::string library = "libcuda.so.1";
};

// Into the calling thread's current context; of that alone. Any thread may
// launch. Unimplemented: a build without kernels (an empty image). NotFound: no
// driver, or none of its functions. Internal: the driver refuses the image, or
// it lacks a kernel.
absl::StatusOr<std::unique_ptr<KernelLauncher>> LoadDriverKernels(
    DriverKernelsOptions options);

// nvcc's image in this binary; empty in a build without nvcc.
absl::Span<const uint8_t> FusedImage();

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_DRIVER_KERNELS_H_
