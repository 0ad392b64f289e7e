// A DeviceGraph of CUDA.
#ifndef SHARDPLANE_WORKER_CUDA_GRAPH_H_
#define SHARDPLANE_WORKER_CUDA_GRAPH_H_

#include <memory>

#include "worker/cuda_support.h"

namespace shardplane {

std::unique_ptr<DeviceGraph> MakeCudaGraph();

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CUDA_GRAPH_H_
