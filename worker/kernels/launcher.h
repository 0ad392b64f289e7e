// Who starts kernels: a GPU's driver (driver_kernels), or a CPU (host_kernels).
#ifndef SHARDPLANE_WORKER_KERNELS_LAUNCHER_H_
#define SHARDPLANE_WORKER_KERNELS_LAUNCHER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "worker/kernels/kernels.h"

namespace shardplane {

// Of the calling thread's current device and stream.
class KernelLauncher {
 public:
  virtual ~KernelLauncher() = default;

  // Begins a kernel of `blocks` blocks of kLanes; it runs after what was begun
  // before. Internal: the device refuses, or an earlier kernel failed.
#define SHARDPLANE_LAUNCH(name, Args, Body)                    \
  virtual absl::Status Launch(Element element, int64_t blocks, \
                              const Args& args) = 0;
  SHARDPLANE_KERNELS(SHARDPLANE_LAUNCH)
  SHARDPLANE_ROW_KERNELS(SHARDPLANE_LAUNCH)
#undef SHARDPLANE_LAUNCH
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_LAUNCHER_H_
