#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Reduction.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/amax.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/full.h"
#include "ATen/ops/full_like.h"
#include "ATen/ops/maximum.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/softmax.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/data_faults.h"
#include "worker/operator_for_test.h"
#include "worker/sharded_operators.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr double kTolerance = 1e-12;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kClasses = 5;

at::Tensor Max(const at::Tensor& logits, int64_t dim) {
  static const auto op = Operator("shardplane::class_max", &ClassMax);
  return op.call(logits, dim);
}

struct LossOptions {
  std::optional<at::Tensor> weight;
  int64_t ignore_index = -100;
  double label_smoothing = 0;
};

// Rows and their counts, [2, batch], by as many ranks.
at::Tensor RowsOverRanks(const at::Tensor& logits, const at::Tensor& target,
                         const LossOptions& options, int ranks) {
  static const auto terms_op =
      Operator("shardplane::cross_entropy_terms", &CrossEntropyTerms);
  static const auto rows_op =
      Operator("shardplane::cross_entropy_rows", &CrossEntropyRows);
  const int64_t dim = logits.dim() == 1 ? 0 : 1;
  const int64_t classes = logits.size(dim);
  const bool ids = !target.is_floating_point();
  const auto part = [&](const at::Tensor& whole, int64_t along, int rank) {
    const Extent extent = Chunk(classes, ranks, rank);
    return whole.narrow(along, extent.offset, extent.size);
  };
  at::Tensor max = Max(part(logits, dim, 0), dim);
  for (int rank = 1; rank < ranks; ++rank) {
    max = at::maximum(max, Max(part(logits, dim, rank), dim));
  }
  at::Tensor terms;
  for (int rank = 0; rank < ranks; ++rank) {
    const Extent extent = Chunk(classes, ranks, rank);
    std::optional<at::Tensor> weight;
    if (options.weight.has_value()) weight = part(*options.weight, 0, rank);
    const at::Tensor own = terms_op.call(
        part(logits, dim, rank), max, ids ? target : part(target, dim, rank),
        weight, dim, extent.size == 0 ? 0 : extent.offset, classes,
        options.ignore_index, options.label_smoothing);
    terms = terms.defined() ? terms + own : own;
  }
  return rows_op.call(terms, ids ? std::optional(target) : std::nullopt,
                      options.weight, classes, options.ignore_index,
                      options.label_smoothing);
}

at::Tensor Reduced(const at::Tensor& rows, int64_t reduction) {
  switch (reduction) {
    case at::Reduction::None:
      return rows[0];
    case at::Reduction::Sum:
      return rows[0].sum();
    default:
      return rows[0].sum() / rows[1].sum();
  }
}

at::Tensor Torch(const at::Tensor& logits, const at::Tensor& target,
                 const LossOptions& options, int64_t reduction) {
  return at::cross_entropy_loss(logits, target, options.weight, reduction,
                                options.ignore_index, options.label_smoothing);
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

// Losses and gradients of all reductions, on 1 to 4 ranks: 5 classes on 4
// ranks are 2, 2, 1 and none.
void ExpectAsTorch(const at::Tensor& logits, const at::Tensor& target,
                   const LossOptions& options) {
  for (const int64_t reduction :
       {at::Reduction::None, at::Reduction::Mean, at::Reduction::Sum}) {
    for (int ranks = 1; ranks <= 4; ++ranks) {
      SCOPED_TRACE(testing::Message()
                   << "reduction " << reduction << ", ranks " << ranks);
      std::vector<at::Tensor> inputs = {Leaf(logits)};
      if (target.is_floating_point()) inputs.push_back(Leaf(target));
      const at::Tensor& labels = inputs.size() == 2 ? inputs[1] : target;
      const at::Tensor expected = Torch(inputs[0], labels, options, reduction);
      const at::Tensor actual =
          Reduced(RowsOverRanks(inputs[0], labels, options, ranks), reduction);
      ExpectClose(actual, expected);
      const at::Tensor gradient = Values(expected.sizes(), 7);
      const auto wanted = torch::autograd::grad({expected}, inputs, {gradient});
      const auto got = torch::autograd::grad({actual}, inputs, {gradient});
      for (size_t i = 0; i < inputs.size(); ++i) ExpectClose(got[i], wanted[i]);
    }
  }
}

struct ShapeCase {
  std::string name;
  std::vector<int64_t> batch_before;
  std::vector<int64_t> batch_after;
};
void PrintTo(const ShapeCase& c, std::ostream* out) { *out << c.name; }

class CrossEntropyTest : public testing::TestWithParam<ShapeCase> {
 protected:
  CrossEntropyTest() {
    std::vector<int64_t> sizes = GetParam().batch_before;
    std::vector<int64_t> batch = sizes;
    sizes.push_back(kClasses);
    for (const int64_t size : GetParam().batch_after) {
      sizes.push_back(size);
      batch.push_back(size);
    }
    logits_ = Values(sizes, 1);
    ids_ = Values(batch, 2).mul(1000).to(at::kLong).remainder(kClasses);
    const int64_t dim = sizes.size() == 1 ? 0 : 1;
    probabilities_ = at::softmax(Values(sizes, 3), dim);
  }

  at::Tensor logits_;
  at::Tensor ids_;
  at::Tensor probabilities_;
};

std::vector<LossOptions> AllOptions() {
  const at::Tensor weight = Values({kClasses}, 4).abs();
  std::vector<LossOptions> all;
  for (const bool weighted : {false, true}) {
    for (const int64_t ignore_index : {-100, 2, 0}) {
      for (const double smoothing : {0.0, 0.1, 1.0}) {
        all.push_back({weighted ? std::optional(weight) : std::nullopt,
                       ignore_index, smoothing});
      }
    }
  }
  return all;
}

TEST_P(CrossEntropyTest, OfClassIds) {
  for (const LossOptions& options : AllOptions()) {
    SCOPED_TRACE(testing::Message()
                 << "weighted " << options.weight.has_value() << ", ignores "
                 << options.ignore_index << ", smoothing "
                 << options.label_smoothing);
    ExpectAsTorch(logits_, ids_, options);
  }
}

TEST_P(CrossEntropyTest, OfProbabilities) {
  for (const LossOptions& options : AllOptions()) {
    // PyTorch ignores no class here.
    if (options.ignore_index >= 0) continue;
    ExpectAsTorch(logits_, probabilities_, options);
  }
}

// A padded vocabulary has -inf logits.
TEST_P(CrossEntropyTest, OfLogitsThatAreMinusInfinity) {
  logits_.select(logits_.dim() == 1 ? 0 : 1, 4).fill_(-kInfinity);
  for (const LossOptions& options : AllOptions()) {
    ExpectAsTorch(logits_, ids_, options);  // also where 4 is the target
    ExpectAsTorch(logits_, ids_.clamp(0, 3), options);
    if (options.ignore_index < 0) {
      ExpectAsTorch(logits_, probabilities_, options);
    }
  }
}

TEST_P(CrossEntropyTest, OfLargeLogits) {
  ExpectAsTorch(logits_ * 1e4, ids_, {});
  ExpectAsTorch(logits_ - 1e6, ids_, {});
}

TEST_P(CrossEntropyTest, OfIgnoredRowsAlone) {
  const at::Tensor ids = at::full_like(ids_, -100);
  ExpectAsTorch(logits_, ids, {});
  ExpectAsTorch(logits_, ids, {.label_smoothing = 0.1});
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropyTest,
                         testing::Values(ShapeCase{"NC", {6}, {}},
                                         ShapeCase{"NCd", {3}, {4}},
                                         ShapeCase{"NCdd", {2}, {3, 2}},
                                         ShapeCase{"C", {}, {}},
                                         ShapeCase{"NoRows", {0}, {}}),
                         [](const auto& info) { return info.param.name; });

TEST(ClassMaxTest, IsTheLargestAndHasNoGradient) {
  const at::Tensor logits = Leaf(Values({3, 5}, 1));
  const at::Tensor max = Max(logits, 1);
  EXPECT_TRUE(max.equal(logits.amax(1)));
  EXPECT_FALSE(max.requires_grad());
  EXPECT_TRUE(Max(logits, -2).equal(logits.amax(0)));
}

TEST(ClassMaxTest, OfNoClassesIsMinusInfinity) {
  EXPECT_TRUE(Max(at::ones({3, 0, 2}, at::kHalf), 1)
                  .equal(at::full({3, 2}, -kInfinity, at::kFloat)));
}

class NarrowTypeTest : public testing::TestWithParam<at::ScalarType> {};

// f32 inside: the only rounding is that of the gradient.
TEST_P(NarrowTypeTest, IsComputedInFloat) {
  const at::Tensor ids = at::tensor({0, 4, 2}, at::kLong);
  for (const double smoothing : {0.0, 0.1}) {
    const LossOptions options{
        .weight = Values({kClasses}, 4).abs().to(GetParam()),
        .label_smoothing = smoothing};
    const LossOptions wide_options{.weight = options.weight->to(at::kFloat),
                                   .label_smoothing = smoothing};
    const at::Tensor logits = Leaf(Values({3, kClasses}, 1).to(GetParam()));
    const at::Tensor wide = Leaf(logits.to(at::kFloat));
    const at::Tensor actual =
        Reduced(RowsOverRanks(logits, ids, options, 3), at::Reduction::Mean);
    const at::Tensor expected =
        Torch(wide, ids, wide_options, at::Reduction::Mean);

    EXPECT_EQ(Max(logits, 1).scalar_type(), at::kFloat);
    EXPECT_EQ(actual.scalar_type(), at::kFloat);
    ExpectClose(actual, expected, 1e-6);
    const at::Tensor gradient = torch::autograd::grad({actual}, {logits})[0];
    EXPECT_EQ(gradient.scalar_type(), GetParam());
    ExpectClose(gradient,
                torch::autograd::grad({expected}, {wide})[0].to(GetParam()),
                GetParam() == at::kBFloat16 ? 8e-3 : 1e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, NarrowTypeTest,
                         testing::Values(at::kBFloat16, at::kHalf));

// Every rank finds it, not only that which has the class.
TEST(CrossEntropyErrorTest, TargetThatIsNoClass) {
  const at::Tensor max = at::zeros({2}, at::kDouble);
  for (const int64_t count : {5, 2, 0}) {
    for (const int64_t id : {9, 5, -1}) {
      const at::Tensor target = at::tensor({0, int(id)}, at::kLong);
      const absl::Status status = CatchTorch("running", [&] {
        CrossEntropyTerms(at::zeros({2, count}, at::kDouble), max, target, {},
                          1, 0, 5, -100, 0);
        return absl::OkStatus();
      });
      EXPECT_THAT(
          status,
          AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("Target " + std::to_string(id)),
                               HasSubstr("[0, 5) or the ignored "
                                         "-100; got: "))),
                HasReason("INDEX_OUT_OF_RANGE")));
    }
  }
}

TEST(CrossEntropyErrorTest, DeferredChecksFindTheSame) {
  const at::Tensor logits = at::arange(15, at::kDouble).view({3, 5});
  const at::Tensor max = at::amax(logits, 1);
  struct Case {
    std::vector<int64_t> ids;
    int64_t ignore_index;
  };
  for (const auto& [ids, ignore_index] : {Case{{0, 4, 2}, -100},
                                          {{-100, 4, 2}, -100},
                                          {{3, 7, 3}, 7},
                                          {{0, 5, 9}, -100},
                                          {{1, -1, 2}, -100}}) {
    at::Tensor terms[2];
    std::string messages[2];
    for (const bool defers : {false, true}) {
      DataFaults faults(defers);
      terms[defers] = CrossEntropyTerms(logits, max, at::tensor(ids, at::kLong),
                                        {}, 1, 0, 5, ignore_index, 0);
      messages[defers] = std::string(faults.status().message());
    }
    EXPECT_TRUE(terms[0].equal(terms[1])) << terms[0] << terms[1];
    EXPECT_EQ(messages[0], messages[1]);
    EXPECT_EQ(messages[0].empty(), ids[1] != 5 && ids[1] != -1);
  }
}

TEST(CrossEntropyErrorTest, ShapesThatDoNotFit) {
  const auto terms = [](std::vector<int64_t> max, at::Tensor target,
                        std::optional<at::Tensor> weight, int64_t offset) {
    return CatchTorch("running", [&] {
      CrossEntropyTerms(at::zeros({2, 3}), at::zeros(max), target, weight, 1,
                        offset, 5, -100, 0);
      return absl::OkStatus();
    });
  };
  const auto invalid = [](const std::string& words) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words));
  };
  const at::Tensor ids = at::zeros({2}, at::kLong);
  EXPECT_THAT(terms({2}, ids, {}, 3), invalid("3 from 3"));
  EXPECT_THAT(terms({3}, ids, {}, 0), invalid("a max of [2]"));
  EXPECT_THAT(terms({2}, ids, at::ones({5}), 0), invalid("of 3 classes"));
  EXPECT_THAT(terms({2}, at::zeros({3}, at::kLong), {}, 0), invalid("ids"));
  EXPECT_THAT(terms({2}, at::zeros({2, 5}), {}, 0), invalid("probabilities"));
  EXPECT_THAT(
      CatchTorch("running",
                 [&] {
                   CrossEntropyRows(at::ones({3, 2}), ids, {}, 5, -100, 0);
                   return absl::OkStatus();
                 }),
      invalid("2 terms"));
}

}  // namespace
}  // namespace shardplane
