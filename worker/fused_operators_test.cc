#include "worker/fused_operators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/mul.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rms_norm.h"
#include "ATen/ops/rsqrt.h"
#include "ATen/ops/silu.h"
#include "ATen/ops/tensor.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/operator_for_test.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<Tensors(const Tensors&)>;

at::Tensor Values(at::IntArrayRef sizes, at::ScalarType dtype, int seed) {
  const at::Tensor numbers =
      at::arange(at::Scalar(c10::multiply_integers(sizes)), at::kDouble);
  return (numbers * 12.9898 + seed * 78.233).sin().view(sizes).to(dtype);
}

// Results and every gradient, to the bit.
void ExpectSame(const Function& fused, const Function& several,
                const std::vector<std::vector<int64_t>>& shapes) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    Tensors found[2];
    for (const bool is_fused : {false, true}) {
      Tensors inputs;
      for (const auto& shape : shapes) {
        const int seed = static_cast<int>(inputs.size());
        inputs.push_back(Values(shape, dtype, seed).requires_grad_(true));
      }
      Tensors results = (is_fused ? fused : several)(inputs);
      Tensors ones;
      for (const at::Tensor& result : results) {
        ones.push_back(Values(result.sizes(), dtype, 9));
      }
      const Tensors gradients = torch::autograd::grad(results, inputs, ones);
      results.insert(results.end(), gradients.begin(), gradients.end());
      found[is_fused] = results;
    }
    for (size_t i = 0; i < found[0].size(); ++i) {
      EXPECT_TRUE(at::equal(found[0][i], found[1][i])) << dtype << " " << i;
      EXPECT_EQ(found[0][i].scalar_type(), dtype);
    }
  }
}

TEST(FusedOperatorsTest, Swiglu) {
  const auto op = Operator("shardplane::swiglu", &Swiglu);
  ExpectSame(
      [&](const Tensors& x) { return Tensors{op.call(x[0], x[1])}; },
      [](const Tensors& x) { return Tensors{at::mul(x[1], at::silu(x[0]))}; },
      {{3, 5}, {3, 5}});
}

TEST(FusedOperatorsTest, Rotary) {
  const auto op = Operator("shardplane::rotary", &Rotary);
  ExpectSame(
      [&](const Tensors& x) { return Tensors{op.call(x[0], x[1], x[2])}; },
      [](const Tensors& x) {
        const Tensors halves = x[0].chunk(2, -1);
        return Tensors{x[0] * x[1] +
                       at::cat({-halves[1], halves[0]}, -1) * x[2]};
      },
      {{2, 3, 5, 6}, {1, 1, 5, 6}, {5, 6}});
  EXPECT_THROW(op.call(at::ones({3}), at::ones({3}), at::ones({3})),
               c10::ValueError);
}

TEST(FusedOperatorsTest, CastRmsNorm) {
  const auto op = Operator("shardplane::cast_rms_norm", &CastRmsNorm);
  ExpectSame(
      [&](const Tensors& x) {
        return Tensors{op.call(x[0], x[1], 1e-3, at::kFloat)};
      },
      [](const Tensors& x) {
        const at::Tensor h = x[0].to(at::kFloat);
        const at::Tensor scaled =
            h * at::rsqrt(h.pow(2).mean({-1}, true) + 1e-3);
        return Tensors{x[1] * scaled.to(x[0].scalar_type())};
      },
      {{3, 4, 8}, {8}});
}

TEST(FusedOperatorsTest, AddRmsNorm) {
  const auto op = Operator("shardplane::add_rms_norm", &AddRmsNorm);
  const auto both = [](const std::tuple<at::Tensor, at::Tensor>& results) {
    return Tensors{std::get<0>(results), std::get<1>(results)};
  };
  ExpectSame(
      [&](const Tensors& x) {
        return both(op.call(x[0], x[1], x[2], 1e-3, std::nullopt));
      },
      [](const Tensors& x) {
        const at::Tensor sum = x[0] + x[1];
        return Tensors{sum, at::rms_norm(sum, {8}, x[2], 1e-3)};
      },
      {{3, 8}, {3, 8}, {8}});
  ExpectSame(
      [&](const Tensors& x) {
        return both(op.call(x[0], x[1], x[2], 1e-3, at::kFloat));
      },
      [](const Tensors& x) {
        const at::Tensor sum = x[0] + x[1];
        return Tensors{sum, CastRmsNorm(sum, x[2], 1e-3, at::kFloat)};
      },
      {{3, 8}, {3, 8}, {8}});
  const at::Tensor x = at::ones({2, 8});
  EXPECT_THROW(op.call(x, x, std::nullopt, 1e-3, at::kFloat), c10::ValueError);
}

TEST(FusedOperatorsTest, CrossEntropyOfRowsInTheirOrder) {
  const auto op = Operator("shardplane::cross_entropy", &CrossEntropy);
  const at::Tensor ids = at::tensor({1, 0, 4, 3, 2, 4}, at::kLong);
  ExpectSame(
      [&](const Tensors& x) {
        const at::Tensor loss =
            op.call(x[0], ids, at::Reduction::Mean, 3, at::kFloat);
        return Tensors{loss.to(x[0].scalar_type())};
      },
      [&](const Tensors& x) {
        const at::Tensor rows = x[0].to(at::kFloat).reshape({6, 5});
        const at::Tensor loss = at::cross_entropy_loss(rows, ids, std::nullopt,
                                                       at::Reduction::Mean, 3);
        return Tensors{loss.to(x[0].scalar_type())};
      },
      {{2, 3, 5}});
}

}  // namespace
}  // namespace shardplane
