#include "worker/sharded_operators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/embedding.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/real.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/view_as_complex.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/operator_for_test.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr double kTolerance = 1e-12;

at::Tensor Embedding(const at::Tensor& weight, const at::Tensor& indices,
                     int64_t offset, int64_t vocabulary, int64_t padding_idx) {
  static const auto op = Operator("shardplane::embedding", &ShardedEmbedding);
  return op.call(weight, indices, offset, vocabulary, padding_idx);
}

at::Tensor Dropout(const at::Tensor& x, const at::Tensor& random, double p,
                   int64_t node, at::IntArrayRef sizes,
                   at::IntArrayRef offsets) {
  static const auto op = Operator("shardplane::dropout", &CounterDropout);
  return op.call(x, random, p, node, sizes, offsets);
}

// Double values that look random, the same in each run; `seed` tells them
// apart.
at::Tensor Values(at::IntArrayRef sizes, double seed) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return (at::arange(count, at::kDouble) * 12.9898 + seed * 78.233)
      .sin()
      .mul(3)
      .view(sizes);
}

at::Tensor Leaf(const at::Tensor& tensor) {
  return tensor.detach().clone().requires_grad_(true);
}

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected,
                 double tolerance = kTolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  EXPECT_TRUE(at::allclose(actual.to(at::kDouble), expected.to(at::kDouble),
                           tolerance, tolerance, /*equal_nan=*/true))
      << actual << "\nexpected\n"
      << expected;
}

at::Tensor GradientOf(const at::Tensor& result, const at::Tensor& input,
                      const at::Tensor& gradient) {
  return torch::autograd::grad({result}, {input}, {gradient})[0];
}

// The error of `function`, as a worker reports it.
template <typename Function>
absl::Status ErrorOf(Function&& function) {
  return CatchTorch("running", [&] {
    function();
    return absl::OkStatus();
  });
}

// ---------------------------------------------------------------------------

class EmbeddingTest : public testing::TestWithParam<int> {};

// What the ranks make of 5 rows together; some have none.
at::Tensor EmbeddingOverRanks(const at::Tensor& weight,
                              const at::Tensor& indices, int64_t padding_idx,
                              int ranks) {
  at::Tensor sum;
  for (int rank = 0; rank < ranks; ++rank) {
    const Extent rows = Chunk(weight.size(0), ranks, rank);
    const at::Tensor part = Embedding(weight.narrow(0, rows.offset, rows.size),
                                      indices, rows.size == 0 ? 0 : rows.offset,
                                      weight.size(0), padding_idx);
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

TEST_P(EmbeddingTest, RanksAddUp) {
  const at::Tensor indices =
      at::tensor({4, 0, 1, 3, 3, 2, 0, 4}, at::kLong).view({2, 4});
  for (const int64_t width : {3, 0}) {
    for (const int64_t padding_idx : {-1, 0, 3}) {
      const at::Tensor weight = Leaf(Values({5, width}, 1));
      const at::Tensor gradient = Values({2, 4, width}, 2);
      const at::Tensor expected = at::embedding(weight, indices, padding_idx);
      const at::Tensor actual =
          EmbeddingOverRanks(weight, indices, padding_idx, GetParam());

      ExpectClose(actual, expected);
      ExpectClose(GradientOf(actual, weight, gradient),
                  GradientOf(expected, weight, gradient));
    }
  }
}

TEST_P(EmbeddingTest, KeepsAnyType) {
  const at::Tensor indices = at::tensor({4, 0, 1}, at::kInt);
  for (const at::ScalarType type :
       {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = Leaf(Values({5, 3}, 1).to(type));
    const at::Tensor expected = at::embedding(weight, indices);
    const at::Tensor actual =
        EmbeddingOverRanks(weight, indices, -1, GetParam());

    EXPECT_EQ(actual.scalar_type(), type);
    EXPECT_TRUE(actual.equal(expected));
    const at::Tensor ones = at::ones_like(expected);
    EXPECT_TRUE(GradientOf(actual, weight, ones)
                    .equal(GradientOf(expected, weight, ones)));
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, EmbeddingTest, testing::Range(1, 5));

TEST(ShardedEmbeddingTest, OtherRanksRowsDoNotMatter) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor weight = at::full({2, 3}, nan, at::kDouble);
  EXPECT_TRUE(Embedding(weight, at::tensor({0, 1, 4}, at::kLong), 2, 5, -1)
                  .equal(at::zeros({3, 3}, at::kDouble)));
}

TEST(ShardedEmbeddingTest, EveryRankChecksIdsAgainstTheWholeVocabulary) {
  for (const int64_t rows : {5, 2, 0}) {
    const at::Tensor weight = Values({rows, 3}, 1);
    for (const int64_t id : {5, -1}) {
      const at::Tensor indices = at::tensor({4, int(id)}, at::kLong);
      EXPECT_THAT(
          ErrorOf([&] { Embedding(weight, indices, 0, 5, -1); }),
          AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("[0, 5); got: " + std::to_string(id))),
                HasReason("INDEX_OUT_OF_RANGE")));
    }
    EXPECT_THAT(
        ErrorOf([&] { Embedding(weight, at::tensor({0.5}), 0, 5, -1); }),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("integers")));
  }
}

TEST(ShardedEmbeddingTest, RowsBeyondTheVocabulary) {
  EXPECT_THAT(
      ErrorOf([] {
        Embedding(Values({3, 2}, 1), at::tensor({0}, at::kLong), 3, 5, -1);
      }),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 from 3")));
}

// ---------------------------------------------------------------------------

at::Tensor Random(int64_t seed, int64_t step) {
  return at::tensor({seed, step}, at::kLong);
}

at::Tensor WholeDropout(const at::Tensor& x, const at::Tensor& random, double p,
                        int64_t node) {
  const std::vector<int64_t> offsets(x.dim(), 0);
  return Dropout(x, random, p, node, x.sizes(), offsets);
}

// By name: what a program calls.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, bool causal, bool grouped) {
  static const auto op = Operator("shardplane::attention", &ShardedAttention);
  return op.call(q, k, v, std::nullopt, 0, causal, std::nullopt, grouped);
}

TEST(ShardedAttentionTest, IsAtensWhereThereAreHeads) {
  const at::Tensor q = Values({2, 4, 6, 8}, 1);
  const at::Tensor k = Values({2, 2, 6, 8}, 2);
  const at::Tensor v = Values({2, 2, 6, 8}, 3);
  EXPECT_TRUE(at::equal(
      Attention(q, k, v, true, true),
      at::scaled_dot_product_attention(q, k, v, {}, 0, true, {}, true)));
}

TEST(ShardedAttentionTest, ARankWithoutHeadsHasNothingAndZeroGradients) {
  for (const bool causal : {false, true}) {
    const at::Tensor q = Leaf(Values({2, 0, 6, 8}, 1));
    const at::Tensor k = Leaf(Values({2, 0, 5, 8}, 2));
    const at::Tensor v = Leaf(Values({2, 0, 5, 3}, 3));
    const at::Tensor result = Attention(q, k, v, causal, true);
    EXPECT_EQ(result.sizes(), at::IntArrayRef({2, 0, 6, 3}));
    const auto gradients = torch::autograd::grad({result.sum()}, {q, k, v});
    EXPECT_EQ(gradients[1].sizes(), k.sizes());
  }
}

TEST(CounterDropoutTest, PartsAreThoseOfTheWhole) {
  const at::Tensor x = Values({5, 6, 7}, 1);
  const at::Tensor whole = WholeDropout(x, Random(1, 2), 0.4, 3);
  for (int64_t dim = 0; dim < 3; ++dim) {
    for (int ranks = 2; ranks <= 4; ++ranks) {
      std::vector<at::Tensor> parts;
      for (int rank = 0; rank < ranks; ++rank) {
        const Extent extent = Chunk(x.size(dim), ranks, rank);
        std::vector<int64_t> offsets(3, 0);
        offsets[dim] = extent.size == 0 ? 0 : extent.offset;
        parts.push_back(Dropout(x.narrow(dim, extent.offset, extent.size),
                                Random(1, 2), 0.4, 3, x.sizes(), offsets));
      }
      EXPECT_TRUE(at::cat(parts, dim).equal(whole)) << dim << " " << ranks;
    }
  }
}

TEST(CounterDropoutTest, ScalesWhatItKeepsAndItsGradient) {
  const at::Tensor x = Leaf(at::ones({100, 100}, at::kDouble));
  const at::Tensor y = WholeDropout(x, Random(1, 2), 0.25, 3);
  const at::Tensor kept = y.ne(0);

  ExpectClose(y, kept.to(at::kDouble) / 0.75);
  EXPECT_NEAR(kept.to(at::kDouble).mean().item<double>(), 0.75, 0.022);
  EXPECT_TRUE(GradientOf(y, x, at::ones_like(x)).equal(y));
}

TEST(CounterDropoutTest, DiffersBySeedStepAndNode) {
  const at::Tensor x = at::ones({64});
  const at::Tensor y = WholeDropout(x, Random(1, 2), 0.5, 3);

  EXPECT_TRUE(WholeDropout(x, Random(1, 2), 0.5, 3).equal(y));
  EXPECT_FALSE(WholeDropout(x, Random(2, 2), 0.5, 3).equal(y));
  EXPECT_FALSE(WholeDropout(x, Random(1, 3), 0.5, 3).equal(y));
  EXPECT_FALSE(WholeDropout(x, Random(1, 2), 0.5, 4).equal(y));
}

TEST(CounterDropoutTest, NothingAndEverythingDropped) {
  const at::Tensor x = Leaf(at::tensor({1.0, HUGE_VAL, -2.0}, at::kDouble));
  const at::Tensor none = WholeDropout(x, Random(1, 2), 0, 3);
  const at::Tensor all = WholeDropout(x, Random(1, 2), 1, 3);
  const at::Tensor ones = at::ones_like(x);

  EXPECT_TRUE(none.equal(x));
  EXPECT_TRUE(GradientOf(none, x, ones).equal(ones));
  EXPECT_TRUE(all.equal(at::zeros_like(x)));
  EXPECT_TRUE(GradientOf(all, x, ones).equal(at::zeros_like(x)));
}

TEST(CounterDropoutTest, KeepsAnyTypeAndShape) {
  for (const at::ScalarType type :
       {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const std::vector<int64_t>& sizes :
         {std::vector<int64_t>{}, {0}, {2, 0, 3}, {3, 5}}) {
      const at::Tensor x = at::ones(sizes, type);
      const at::Tensor y = WholeDropout(x, Random(1, 2), 0.5, 3);
      EXPECT_EQ(y.scalar_type(), type);
      const at::Tensor wide =
          WholeDropout(x.to(at::kDouble), Random(1, 2), 0.5, 3);
      EXPECT_TRUE(y.to(at::kDouble).equal(wide));
    }
  }
}

// A transposed input is dropped by its indices, not by where it lies.
TEST(CounterDropoutTest, OfAStridedTensor) {
  const at::Tensor x = Values({6, 5}, 1).t();
  EXPECT_TRUE(WholeDropout(x, Random(1, 2), 0.5, 3)
                  .equal(WholeDropout(x.contiguous(), Random(1, 2), 0.5, 3)));
}

TEST(CounterDropoutTest, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3});
  const auto error = [&](const at::Tensor& random, double p,
                         const std::vector<int64_t>& sizes,
                         const std::vector<int64_t>& offsets) {
    return ErrorOf([&] { Dropout(x, random, p, 0, sizes, offsets); });
  };
  const auto invalid = [](const std::string& words) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words));
  };
  EXPECT_THAT(error(Random(1, 2), 1.5, {2, 3}, {0, 0}), invalid("got: 1.5"));
  EXPECT_THAT(error(Random(1, 2), 0.5, {2, 3}, {1, 0}), invalid("[1+2, 0+3]"));
  EXPECT_THAT(error(Random(1, 2), 0.5, {6}, {0}), invalid("2 sizes"));
  EXPECT_THAT(error(at::ones({2}), 0.5, {2, 3}, {0, 0}), invalid("i64[2]"));
}

// A rank's part of x[2, n, 2, 3] transposed, where n is too few for it.
TEST(ViewAsComplexTest, TakesAnEmptyPartWhateverItsStrides) {
  static const auto op =
      Operator("shardplane::view_as_complex", &ViewAsComplex);
  at::Tensor x = at::ones({2, 0, 2, 3}, at::kDouble);
  x.requires_grad_(true);
  const at::Tensor part = x.transpose(2, 3).contiguous();
  EXPECT_THROW(at::view_as_complex(part), c10::Error);

  const at::Tensor y = op.call(part);

  EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 0, 3}));
  const at::Tensor loss = at::real(y.mul(y.conj())).sum();
  EXPECT_EQ(torch::autograd::grad({loss}, {x})[0].sizes(), x.sizes());
}

TEST(ViewAsComplexTest, IsAViewWhereItCanBe) {
  const at::Tensor x = at::arange(8, at::kDouble).view({4, 2});
  EXPECT_TRUE(ViewAsComplex(x).is_alias_of(x));
  EXPECT_EQ(ViewAsComplex(at::ones({2})).dim(), 0);
  EXPECT_EQ(ViewAsComplex(at::ones({0, 3, 2})).sizes(),
            at::IntArrayRef({0, 3}));
}

}  // namespace
}  // namespace shardplane
