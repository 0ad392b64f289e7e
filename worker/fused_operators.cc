#include "worker/fused_operators.h"

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/rms_norm.h"
#include "ATen/ops/silu.h"
#include "torch/library.h"
#include "worker/class_ids.h"

namespace shardplane {

at::Tensor Swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return at::silu(gate).mul(up);
}

at::Tensor Rotary(const at::Tensor& x, const at::Tensor& cos,
                  const at::Tensor& sin) {
  const int64_t half = x.size(-1) / 2;
  TORCH_CHECK_VALUE(x.size(-1) == 2 * half,
                    "rotary: expected an even last dim; got: ", x.sizes());
  const at::Tensor turned =
      at::cat({x.slice(-1, half).neg(), x.slice(-1, 0, half)}, -1);
  return x.mul(cos).add(turned.mul(sin));
}

at::Tensor CastRmsNorm(const at::Tensor& x, const at::Tensor& weight,
                       double eps, at::ScalarType dtype) {
  const at::Tensor h = x.to(dtype);
  const at::Tensor mean = h.pow(2).mean({-1}, /*keepdim=*/true);
  return weight.mul(h.mul(mean.add(eps).rsqrt()).to(x.scalar_type()));
}

std::tuple<at::Tensor, at::Tensor> AddRmsNorm(
    const at::Tensor& x, const at::Tensor& y,
    const std::optional<at::Tensor>& weight, std::optional<double> eps,
    std::optional<at::ScalarType> dtype) {
  const at::Tensor sum = x.add(y);
  if (!dtype.has_value()) {
    return {sum, at::rms_norm(sum, {sum.size(-1)}, weight, eps)};
  }
  TORCH_CHECK_VALUE(weight.has_value() && eps.has_value(),
                    "add_rms_norm: expected a weight and eps with a dtype; "
                    "got: none");
  return {sum, CastRmsNorm(sum, *weight, *eps, *dtype)};
}

at::Tensor RowsOf(const at::Tensor& x) {
  return x.dim() > 2 ? x.flatten(0, -2) : x;
}

at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                        int64_t reduction, int64_t ignore_index,
                        std::optional<at::ScalarType> dtype) {
  const at::Tensor rows = RowsOf(logits);
  const at::Tensor ids =
      CheckedIds("Target", target, {rows.size(-1), ignore_index});
  return at::cross_entropy_loss(dtype.has_value() ? rows.to(*dtype) : rows, ids,
                                std::nullopt, reduction, ignore_index);
}

void DefineFusedOperators(torch::Library* library) {
  library->def("swiglu(Tensor gate, Tensor up) -> Tensor", &Swiglu);
  library->def("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor", &Rotary);
  library->def(
      "cast_rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> "
      "Tensor",
      &CastRmsNorm);
  library->def(
      "add_rms_norm(Tensor x, Tensor y, Tensor? weight, float? eps, "
      "ScalarType? dtype) -> (Tensor, Tensor)",
      &AddRmsNorm);
  library->def(
      "cross_entropy(Tensor logits, Tensor target, int reduction, "
      "int ignore_index, ScalarType? dtype) -> Tensor",
      &CrossEntropy);
}

}  // namespace shardplane
