// The operators of fused_operators and sharded_operators that have kernels:
// each calls its kernels where they take its arguments, with gradients, and
// else the calls that it stands for.
#ifndef SHARDPLANE_WORKER_KERNEL_OPERATORS_H_
#define SHARDPLANE_WORKER_KERNEL_OPERATORS_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "ATen/core/Tensor.h"

namespace shardplane {

// element_kernels.cc
at::Tensor SwigluByKernel(const at::Tensor& gate, const at::Tensor& up);
at::Tensor RotaryByKernel(const at::Tensor& x, const at::Tensor& cos,
                          const at::Tensor& sin);
at::Tensor DropoutByKernel(const at::Tensor& x, const at::Tensor& random,
                           double p, int64_t node, at::IntArrayRef sizes,
                           at::IntArrayRef offsets);

std::tuple<at::Tensor, at::Tensor> CheckedIdsByKernel(
    const at::Tensor& ids, int64_t lowest, int64_t limit,
    std::optional<int64_t> ignored);

// row_kernels.cc
at::Tensor CastRmsNormByKernel(const at::Tensor& x, const at::Tensor& weight,
                               double eps, at::ScalarType dtype);
std::tuple<at::Tensor, at::Tensor> AddRmsNormByKernel(
    const at::Tensor& x, const at::Tensor& y,
    const std::optional<at::Tensor>& weight, std::optional<double> eps,
    std::optional<at::ScalarType> dtype);
at::Tensor CrossEntropyTermsByKernel(
    const at::Tensor& logits, const at::Tensor& max, const at::Tensor& target,
    const std::optional<at::Tensor>& weight, int64_t dim, int64_t offset,
    int64_t classes, int64_t ignore_index, double label_smoothing);
at::Tensor CrossEntropyByKernel(const at::Tensor& logits,
                                const at::Tensor& target, int64_t reduction,
                                int64_t ignore_index,
                                std::optional<at::ScalarType> dtype);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNEL_OPERATORS_H_
