// Tensors whose chunks of a dim lie one after the other in memory.
#ifndef SHARDPLANE_WORKER_DIM_FIRST_H_
#define SHARDPLANE_WORKER_DIM_FIRST_H_

#include <cstdint>

#include "ATen/core/Tensor.h"

namespace shardplane {

// Zeros behind, up to `extent` elements of `dim`.
at::Tensor PadTo(const at::Tensor& tensor, int64_t dim, int64_t extent);

// `dim` comes first: chunks of it are one after the other. Contiguous.
// [4, 6, 8], dim 1 -> [6, 4, 8].
at::Tensor DimFirst(const at::Tensor& tensor, int64_t dim);

// The first `extent` of the first dim, put back in its place. Contiguous, with
// the strides of a new tensor. [6, 4, 8], dim 1, extent 5 -> [4, 5, 8].
at::Tensor DimBack(const at::Tensor& tensor, int64_t dim, int64_t extent);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DIM_FIRST_H_
