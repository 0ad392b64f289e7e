// The kernels of worker/kernels on a GPU, of torch's context and streams.
#ifndef SHARDPLANE_WORKER_CUDA_KERNELS_H_
#define SHARDPLANE_WORKER_CUDA_KERNELS_H_

#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "worker/kernels/launcher.h"

namespace shardplane {

// Loaded for the GPU that is asked for first, and kept: a process has one.
// Unimplemented: a build without nvcc. Others as LoadDriverKernels.
absl::StatusOr<KernelLauncher*> CudaKernels(c10::Device device);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CUDA_KERNELS_H_
