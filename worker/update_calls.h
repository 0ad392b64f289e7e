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

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_UPDATE_CALLS_H_
