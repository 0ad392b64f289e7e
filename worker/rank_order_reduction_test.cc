#include "worker/rank_order_reduction.h"

#include <gtest/gtest.h>

#include "ATen/core/Tensor.h"
#include "ATen/ops/tensor.h"

namespace shardplane {
namespace {

TEST(ReduceInRankOrderTest, MaxAndMin) {
  const at::Tensor pieces = at::tensor({1, 5, 3, 2}, at::kFloat).view({2, 2});
  EXPECT_TRUE(ReduceInRankOrder(pieces, ReduceOp::kMax)
                  .equal(at::tensor({3, 5}, at::kFloat)));
  EXPECT_TRUE(ReduceInRankOrder(pieces, ReduceOp::kMin)
                  .equal(at::tensor({1, 2}, at::kFloat)));
}

TEST(ReduceInRankOrderTest, RankAfterRank) {
  // 1e8 - 1e8 + 1; what meets 1e8 alone is lost in f32.
  const at::Tensor pieces =
      at::tensor({1e8, -1e8, 1.0}, at::kFloat).view({3, 1});
  EXPECT_EQ(ReduceInRankOrder(pieces, ReduceOp::kSum).item<float>(), 1);
  EXPECT_EQ(ReduceInRankOrder(pieces.flip(0), ReduceOp::kSum).item<float>(), 0);
}

TEST(ReduceInRankOrderTest, Bfloat16IsRoundedOnce) {
  // 256 + 1 + 1 = 258 in f32; bf16 would round 257 back to 256 twice.
  const at::Tensor pieces =
      at::tensor({256, 1, 1}, at::kFloat).to(at::kBFloat16).view({3, 1});
  EXPECT_EQ(ReduceInRankOrder(pieces, ReduceOp::kSum).item<float>(), 258);
}

}  // namespace
}  // namespace shardplane
