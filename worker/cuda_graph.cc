#include "worker/cuda_graph.h"

#include <exception>

#include "ATen/cuda/CUDAContext.h"
#include "ATen/cuda/CUDAGraph.h"
#include "c10/core/StreamGuard.h"
#include "c10/cuda/CUDACachingAllocator.h"

namespace shardplane {
namespace {

class CudaGraph : public DeviceGraph {
 public:
  std::vector<at::Tensor> Capture(const Work& work) override {
    // Captured on a stream of its own: the default one cannot be. What was
    // begun before is done; memory that waits to be used again is given back,
    // as a graph's is apart from it.
    at::cuda::getCurrentCUDAStream().unwrap().synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    const c10::StreamGuard guard(at::cuda::getStreamFromPool().unwrap());
    // Other threads may go on calling CUDA.
    graph_.capture_begin(/*pool=*/{0, 0}, cudaStreamCaptureModeThreadLocal);
    std::vector<at::Tensor> made;
    try {
      made = work();
    } catch (...) {
      End(std::current_exception());
    }
    graph_.capture_end();
    return made;
  }

  void Replay() override { graph_.replay(); }

 private:
  // Ends a capture that failed, and throws why it did.
  [[noreturn]] void End(const std::exception_ptr& why) {
    try {
      graph_.capture_end();
    } catch (const c10::Error&) {
      // Says again that the capture has failed.
    }
    std::rethrow_exception(why);
  }

  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<DeviceGraph> MakeCudaGraph() {
  return std::make_unique<CudaGraph>();
}

}  // namespace shardplane
