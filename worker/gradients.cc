#include "worker/gradients.h"

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"

namespace shardplane {
namespace {

// As a matrix, also where one of its dims is empty.
at::Tensor RowsOf(const at::Tensor& tensor) {
  return tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor.flatten(0, -2);
}

}  // namespace

at::Tensor WeightProduct::Made() const {
  const at::AutoGradMode no_grad(false);
  return RowsOf(gradient).t().mm(RowsOf(input));
}

void WeightProduct::AddTo(const at::Tensor& weight, double scale,
                          double factor) const {
  const at::AutoGradMode no_grad(false);
  weight.addmm_(RowsOf(gradient).t(), RowsOf(input), scale, factor);
}

void MakeProducts(NamedProducts& products, NamedTensors& gradients) {
  while (!products.empty()) {
    const auto next = products.begin();
    gradients[next->first] = next->second.Made();
    products.erase(next);  // its memory
  }
}

}  // namespace shardplane
