// For tests: a DeviceGraph that counts. On a GPU it is the GPU's, on a CPU one
// that calls its work again.
#ifndef SHARDPLANE_WORKER_GRAPH_FOR_TEST_H_
#define SHARDPLANE_WORKER_GRAPH_FOR_TEST_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "worker/cuda_support.h"

namespace shardplane {

struct GraphCounts {
  int captures = 0;
  int replays = 0;
  bool fails = false;  // every capture
};

// What capturing does on a CPU, where nothing records.
enum class OnCpu {
  kFillsMemory,  // it calls the work, and replays fill the memory of that
  kKeepsWork,    // nothing: the work changes what there is
};

class CountedGraph : public DeviceGraph {
 public:
  CountedGraph(c10::Device device, OnCpu on_cpu, GraphCounts* counts)
      : real_(device.is_cuda() ? FindCudaSupport()->make_graph() : nullptr),
        on_cpu_(on_cpu),
        counts_(counts) {}

  std::vector<at::Tensor> Capture(const Work& work) override {
    ++counts_->captures;
    TORCH_CHECK(!counts_->fails, "operation not permitted when capturing");
    if (real_ != nullptr) return real_->Capture(work);
    work_ = work;
    if (on_cpu_ == OnCpu::kFillsMemory) memory_ = work();
    return memory_;
  }

  void Replay() override {
    ++counts_->replays;
    if (real_ != nullptr) return real_->Replay();
    const std::vector<at::Tensor> made = work_();
    for (size_t i = 0; i < memory_.size(); ++i) {
      if (made[i].defined()) memory_[i].copy_(made[i]);
    }
  }

 private:
  std::unique_ptr<DeviceGraph> real_;
  const OnCpu on_cpu_;
  GraphCounts* const counts_;
  Work work_;
  std::vector<at::Tensor> memory_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GRAPH_FOR_TEST_H_
