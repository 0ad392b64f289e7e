// The kernels' bodies on a CPU, a block and a lane after the other: slow, for
// tests of what they compute where there is no GPU.
#ifndef SHARDPLANE_WORKER_KERNELS_HOST_KERNELS_H_
#define SHARDPLANE_WORKER_KERNELS_HOST_KERNELS_H_

#include "worker/kernels/launcher.h"

namespace shardplane {

// Lives as long as the process. Any thread.
KernelLauncher& HostKernels();

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_HOST_KERNELS_H_
