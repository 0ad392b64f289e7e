// PyTorch's profiler, Kineto, as a Profiler. Free of torch.
#ifndef SHARDPLANE_WORKER_KINETO_PROFILER_H_
#define SHARDPLANE_WORKER_KINETO_PROFILER_H_

#include <memory>
#include <string>

#include "worker/step_profiler.h"

namespace shardplane {

// Operators on the host and, where `device` is a GPU ("cuda:0"), its kernels
// and copies, those of graphs too. Internal: Kineto's errors.
std::unique_ptr<Profiler> MakeKinetoProfiler(const std::string& device);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KINETO_PROFILER_H_
