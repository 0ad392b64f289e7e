// Kernels of our own (worker/kernels) for the operators of fused_operators, and
// for shardplane.cross_entropy_terms, with the gradients that they make.
#ifndef SHARDPLANE_WORKER_FUSED_KERNELS_H_
#define SHARDPLANE_WORKER_FUSED_KERNELS_H_

#include "c10/core/DispatchKey.h"
#include "worker/kernels/launcher.h"

namespace shardplane {

// From now on those operators run as kernels on tensors of `backend` (CUDA; in
// tests CPU) in f32 and bf16. What a kernel does not take (other types,
// gradients of rotary's cos and sin, class weights, rows that are too long)
// still runs as calls. Once a process and backend; `launcher` outlives it.
void UseFusedKernels(KernelLauncher* launcher, c10::DispatchKey backend);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FUSED_KERNELS_H_
