// Operators that do the work of several (common/fused_operators puts them into
// programs), as calls of those: what a GPU's own kernels are held to, and what
// runs where there are none. The same bits as the several, forward and
// backward. All take f64, f32, bf16 and f16 on any device and throw
// c10::Errors.
#ifndef SHARDPLANE_WORKER_FUSED_OPERATORS_H_
#define SHARDPLANE_WORKER_FUSED_OPERATORS_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "ATen/core/Tensor.h"

namespace torch {
class Library;
}  // namespace torch

namespace shardplane {

// silu(gate) * up, of one shape.
at::Tensor Swiglu(const at::Tensor& gate, const at::Tensor& up);

// x * cos + cat(-x[..., n/2:], x[..., :n/2]) * sin for x [..., n], n even; cos
// and sin are broadcast to it.
at::Tensor Rotary(const at::Tensor& x, const at::Tensor& cos,
                  const at::Tensor& sin);

// weight * (h * rsqrt(mean(h^2) + eps)).to(dtype of x), where h is x.to(dtype)
// and the mean is over the last dim: x [..., n], weight [n] -> [..., n].
at::Tensor CastRmsNorm(const at::Tensor& x, const at::Tensor& weight,
                       double eps, at::ScalarType dtype);

// x + y, and the CastRmsNorm of that; without `dtype`, its aten.rms_norm over
// the last dim. ValueError: a `dtype` without `weight` or `eps`.
std::tuple<at::Tensor, at::Tensor> AddRmsNorm(
    const at::Tensor& x, const at::Tensor& y,
    const std::optional<at::Tensor>& weight, std::optional<double> eps,
    std::optional<at::ScalarType> dtype);

// x [..., c] -> [n, c].
at::Tensor RowsOf(const at::Tensor& x);

// aten.cross_entropy_loss of class ids [n], without weights or smoothing; of
// the n rows of logits [..., c], in their order, and .to(dtype) where there is
// one. `reduction`: at::Reduction.
at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                        int64_t reduction, int64_t ignore_index,
                        std::optional<at::ScalarType> dtype);

// "shardplane.swiglu.default" and so on; once a process.
void DefineFusedOperators(torch::Library* library);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FUSED_OPERATORS_H_
