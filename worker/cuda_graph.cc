#include "worker/cuda_graph.h"

#include <exception>

#include "ATen/core/CachingHostAllocator.h"
#include "ATen/cuda/CUDAContext.h"
#include "ATen/cuda/CUDAGeneratorImpl.h"
#include "ATen/cuda/CUDAGraph.h"
#include "c10/core/StreamGuard.h"
#include "c10/cuda/CUDACachingAllocator.h"

namespace shardplane {
namespace {

// LibTorch's capture_end throws where the capture has failed, before it has
// taken back what capture_begin told others.
class Graph : public at::cuda::CUDAGraph {
 public:
  // After a capture_begin or capture_end that threw. Else the allocators ask
  // the graph about each allocation, also once it is gone, and keep its memory.
  void Abandon() {
    if (capture_ended_) return;  // the destructor does the rest
    namespace allocator = c10::cuda::CUDACachingAllocator;
    at::HostAllocator* const host = at::getHostAllocator(at::kCUDA);
    Try([&] { allocator::endAllocateToPool(capture_dev_, mempool_id_); });
    Try([&] { host->end_allocate_to_pool(mempool_id_); });
    Try([&] { allocator::releasePool(capture_dev_, mempool_id_); });
    Try([&] { host->release_pool(mempool_id_); });
    for (const auto& [generator, increment] : captured_generator_states_) {
      generator->capturing_ = false;
    }
  }

 private:
  template <typename Function>
  static void Try(Function function) {
    try {
      function();
    } catch (const std::exception&) {
      // capture_end came as far as that, or capture_begin did not.
    }
  }
};

// One for all graphs of a thread: cuBLAS has a workspace, 32 MiB on Hopper, for
// each stream that it has seen, which lies in the memory of a graph. Ranks that
// are threads, as in tests, capture at a time, maybe on GPUs of their own.
c10::Stream CaptureStream() {
  static thread_local const c10::Stream stream =
      at::cuda::getStreamFromPool().unwrap();
  return stream;
}

class CudaGraph : public DeviceGraph {
 public:
  std::vector<at::Tensor> Capture(const Work& work) override {
    // Captured on a stream of its own: the default one cannot be. What was
    // begun before is done; memory that waits to be used again is given back,
    // as a graph's is apart from it.
    at::cuda::getCurrentCUDAStream().unwrap().synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    const c10::StreamGuard guard(CaptureStream());
    Take([&] {
      // Other threads may go on calling CUDA.
      graph_.capture_begin(/*pool=*/{0, 0}, cudaStreamCaptureModeThreadLocal);
    });
    std::vector<at::Tensor> made;
    try {
      made = work();
    } catch (...) {
      EndFailed();
      throw;
    }
    Take([&] { graph_.capture_end(); });
    return made;
  }

  void Replay() override { graph_.replay(); }

 private:
  template <typename Step>
  void Take(Step step) {
    try {
      step();
    } catch (const c10::Error&) {
      graph_.Abandon();
      throw;
    }
  }

  void EndFailed() {
    try {
      Take([&] { graph_.capture_end(); });
    } catch (const c10::Error&) {
      // Says again that the capture has failed.
    }
  }

  Graph graph_;
};

}  // namespace

std::unique_ptr<DeviceGraph> MakeCudaGraph() {
  return std::make_unique<CudaGraph>();
}

}  // namespace shardplane
