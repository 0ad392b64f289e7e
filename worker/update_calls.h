// An update of parameters as calls of ATen's fused kernels.
#ifndef SHARDPLANE_WORKER_UPDATE_CALLS_H_
#define SHARDPLANE_WORKER_UPDATE_CALLS_H_

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "common/optimizer.h"
#include "worker/adam_kernel.h"

namespace shardplane {

// Of complex numbers their parts, each of which torch's optimizers update as a
// number of its own. Else `tensor`.
at::Tensor AsReal(const at::Tensor& tensor);

// Tensors that one call of a kernel updates together: of one element type, by
// the same values. Parameters and state lie in one run, complex numbers as
// their parts; gradients are as they were left.
struct SgdBatch {
  SgdOptions options;
  bool first = false;  // the buffers are new
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> buffers;  // empty without momentum
};
struct AdamBatch {
  AdamOptions options;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> exp_avgs;
  std::vector<at::Tensor> exp_avg_sqs;
  std::vector<at::Tensor> max_exp_avg_sqs;  // empty without amsgrad
  std::vector<int64_t> steps;               // by parameter, this one counted
};
using UpdateBatch = std::variant<SgdBatch, AdamBatch>;

// Makes the updates, in place. Gradients stay as they are: by `clip_scale`
// copies are multiplied. Throws what torch throws.
void CallKernels(absl::Span<const UpdateBatch> batches,
                 std::optional<double> clip_scale);

// The numbers of an update that change from step to step, where kernels read
// them: a graph of the device that reads them need not be captured anew.
struct UpdateNumbers {
  std::vector<at::Tensor> lrs;                // f32[], by batch
  std::vector<std::optional<double>> filled;  // lrs as they were written last
  std::vector<at::Tensor> steps;  // f32[], of all counts that occur, ascending
  at::Tensor clip_scale;          // f32[1]; undefined: nothing is clipped
  std::vector<AdamTable> tables;  // by batch; of those with a kernel of ours
};

// Whether the batch's kernel takes UpdateNumbers. f64's do not, as they would
// get an lr of 24 bits, nor what torch has no right kernel for.
bool TakesNumbers(const UpdateBatch& batch);

// Of the same shape for all updates of one UpdateIdentity. Does not wait for
// the device.
UpdateNumbers MakeNumbers(absl::Span<const UpdateBatch> batches, bool clips);
void FillNumbers(absl::Span<const UpdateBatch> batches,
                 std::optional<double> clip_scale, UpdateNumbers& numbers);
// CallKernels, of batches that take numbers and that these were made for. lr is
// rounded to f32.
void CallKernels(absl::Span<const UpdateBatch> batches,
                 const UpdateNumbers& numbers);

// All that a graph of CallKernels has fixed: kernels, addresses, extents, what
// is no UpdateNumber. Keeps no memory: it says where tensors lay.
struct UpdateIdentity {
  std::vector<Hyperparameters> options;  // by batch; lr 0
  std::vector<int64_t> places;
  friend bool operator==(const UpdateIdentity&,
                         const UpdateIdentity&) = default;
};
UpdateIdentity IdentityOf(absl::Span<const UpdateBatch> batches, bool clips);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_UPDATE_CALLS_H_
