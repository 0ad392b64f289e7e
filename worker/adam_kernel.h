// Adam and AdamW of many tensors as one kernel of a GPU.
#ifndef SHARDPLANE_WORKER_ADAM_KERNEL_H_
#define SHARDPLANE_WORKER_ADAM_KERNEL_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "common/optimizer.h"

namespace shardplane {

// Of one parameter. State undefined: not there.
struct AdamOperands {
  at::Tensor parameter;
  at::Tensor gradient;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  at::Tensor max_exp_avg_sq;  // with amsgrad
  at::Tensor steps;           // f32[], this update counted
};

// Whether the kernel updates these: on a device that has kernels
// (UseFusedKernels), of f32 or bf16 all, each tensor in one run.
bool HasAdamKernel(absl::Span<const AdamOperands> states);

// Where tensors lie, and which of their elements a block updates: on the
// device, since a kernel has no room for it among its arguments. Does not wait
// for the device.
struct AdamTable {
  at::Tensor places;  // i64[]; undefined: there is none
  int64_t tensors = 0;
  int64_t chunks = 0;
  at::ScalarType type = at::kFloat;
};
AdamTable MakeAdamTable(absl::Span<const AdamOperands> states);

// Makes the update. `lr`: f32[], in the place of the options'; `clip_scale`:
// f32[1], what gradients are multiplied by, or undefined. Computes in f32.
void AdamByKernel(const AdamOptions& options, const AdamTable& table,
                  const at::Tensor& lr, const at::Tensor& clip_scale);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_ADAM_KERNEL_H_
