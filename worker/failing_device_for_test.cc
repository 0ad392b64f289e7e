// Loaded beside a worker (LD_PRELOAD), its CPU is a device that fails: as soon
// as a ReLU sees a nan, and at every ReLU from then on, as a GPU would.
#include <atomic>

#include "ATen/core/Tensor.h"
#include "c10/util/Exception.h"
#include "torch/library.h"

namespace {

std::atomic<bool> failed = false;

at::Tensor Relu(const at::Tensor& x) {
  if (x.sum().isnan().item<bool>()) failed = true;
  if (failed) {
    throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 719,
                                "unspecified launch failure");
  }
  return x.clamp_min(0);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CPU, library) { library.impl("relu", &Relu); }
