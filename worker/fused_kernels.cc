#include "worker/fused_kernels.h"

#include "c10/core/DispatchKeySet.h"
#include "torch/library.h"
#include "worker/kernel_calls.h"
#include "worker/kernel_operators.h"
#include "worker/sharded_operators.h"

namespace shardplane {

void UseFusedKernels(KernelLauncher* launcher, c10::DispatchKey backend) {
  RegisterShardedOperators();
  SetKernelLauncher(launcher, backend);
  // A backend's own kernel keeps autograd off the calls, so it has both keys.
  for (const c10::DispatchKey key :
       {backend,
        c10::getAutogradKeyFromBackend(c10::toBackendComponent(backend))}) {
    // Lives as long as the process.
    auto* library = new torch::Library(torch::Library::IMPL, "shardplane", key,
                                       __FILE__, __LINE__);
    library->impl("checked_ids", &CheckedIdsByKernel);
    library->impl("dropout", &DropoutByKernel);
    library->impl("swiglu", &SwigluByKernel);
    library->impl("rotary", &RotaryByKernel);
    library->impl("cast_rms_norm", &CastRmsNormByKernel);
    library->impl("add_rms_norm", &AddRmsNormByKernel);
    library->impl("cross_entropy", &CrossEntropyByKernel);
    library->impl("cross_entropy_terms", &CrossEntropyTermsByKernel);
  }
}

}  // namespace shardplane
