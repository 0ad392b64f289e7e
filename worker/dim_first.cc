#include "worker/dim_first.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/zeros.h"

namespace shardplane {

at::Tensor PadTo(const at::Tensor& tensor, int64_t dim, int64_t extent) {
  if (tensor.size(dim) == extent) return tensor;
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes[dim] = extent;
  at::Tensor padded = at::zeros(sizes, tensor.options());
  padded.narrow(dim, 0, tensor.size(dim)).copy_(tensor);
  return padded;
}

at::Tensor DimFirst(const at::Tensor& tensor, int64_t dim) {
  return tensor.movedim(dim, 0).contiguous();
}

at::Tensor DimBack(const at::Tensor& tensor, int64_t dim, int64_t extent) {
  const at::Tensor back =
      tensor.narrow(0, 0, extent).movedim(0, dim).contiguous();
  // Where a dim has one element, contiguous() leaves any stride to it; and
  // operators choose among ways of other roundings by strides.
  return back.view(-1).view(back.sizes());
}

}  // namespace shardplane
