#include "worker/rank_order_reduction.h"

#include "ATen/core/Tensor.h"
#include "ATen/ops/maximum.h"
#include "ATen/ops/minimum.h"

namespace shardplane {
namespace {

at::Tensor Reduced(const at::Tensor& sum, const at::Tensor& piece,
                   ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return sum.add(piece);
    case ReduceOp::kMax:
      return at::maximum(sum, piece);
    case ReduceOp::kMin:
      return at::minimum(sum, piece);
  }
  return sum;
}

}  // namespace

at::Tensor ReduceInRankOrder(const at::Tensor& pieces, ReduceOp op) {
  const at::ScalarType type = pieces.scalar_type();
  const bool by_float = at::isReducedFloatingType(type);
  at::Tensor sum = pieces.select(0, 0);
  if (by_float) sum = sum.to(at::kFloat);
  for (int64_t i = 1; i < pieces.size(0); ++i) {
    const at::Tensor piece = pieces.select(0, i);
    sum = Reduced(sum, by_float ? piece.to(at::kFloat) : piece, op);
  }
  return by_float ? sum.to(type) : sum;
}

}  // namespace shardplane
