// Kernels beside the calls that they stand for. On a CPU, where the bodies run
// lane by lane, and in the target tagged gpu on one.
#include "worker/fused_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/class_ids.h"
#include "worker/device_for_test.h"
#include "worker/fused_operators.h"
#include "worker/kernels_for_test.h"
#include "worker/operator_for_test.h"
#include "worker/segments.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<Tensors(const Tensors&)>;
using Shapes = std::vector<std::vector<int64_t>>;

at::Device TestDevice() { return at::Device(DeviceForTest(0)); }

at::Tensor Values(at::IntArrayRef sizes, at::ScalarType dtype, int seed) {
  const at::Tensor numbers =
      at::arange(at::Scalar(c10::multiply_integers(sizes)), at::kDouble);
  return (numbers * 12.9898 + seed * 78.233)
      .sin()
      .mul(2)
      .view(sizes)
      .to(TestDevice(), dtype);
}

// How far two tensors are apart, of the larger one's size, in f64.
double Distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor exact = b.to(at::kDouble);
  const double size = exact.abs().max().item<double>();
  return (a.to(at::kDouble) - exact).abs().max().item<double>() /
         std::max(size, 1e-30);
}

// Results, then the gradients of the inputs before `constant`.
Tensors ResultsAndGradients(const Function& function, Tensors inputs,
                            size_t constant) {
  for (size_t i = 0; i < constant; ++i) {
    inputs[i] = inputs[i].detach().requires_grad_(true);
  }
  Tensors results = function(inputs);
  Tensors directions;
  for (const at::Tensor& result : results) {
    directions.push_back(
        Values(result.sizes(), at::kBFloat16, 9).to(result.scalar_type()));
  }
  const Tensors gradients = torch::autograd::grad(
      results, Tensors(inputs.begin(), inputs.begin() + constant), directions);
  results.insert(results.end(), gradients.begin(), gradients.end());
  return results;
}

struct Expected {
  int launches = 0;   // of kernels, forward and backward
  int roundings = 1;  // to bf16, on the way to a result
};

// Results and gradients are no farther from what the calls make in f64 than
// the roundings of their type, and that many kernels made them.
void ExpectClose(const Function& fused, const Function& calls,
                 const Tensors& inputs, size_t constant,
                 const Expected& expected, const std::string& what) {
  constexpr double kHalfStep = 1.0 / 256;  // of bf16
  KernelsInUse().Take();
  const Tensors found = ResultsAndGradients(fused, inputs, constant);
  EXPECT_EQ(KernelsInUse().Take(), expected.launches) << what;
  Tensors wide;
  for (const at::Tensor& input : inputs) {
    wide.push_back(input.is_floating_point() ? input.to(at::kDouble) : input);
  }
  const Tensors exact = ResultsAndGradients(calls, wide, constant);
  ASSERT_EQ(found.size(), exact.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const bool f32 = found[i].scalar_type() == at::kFloat;
    EXPECT_LE(Distance(found[i], exact[i]),
              f32 ? 4e-6 : expected.roundings * kHalfStep)
        << what << ", result " << i;
    EXPECT_EQ(found[i].sizes(), exact[i].sizes()) << what << ", result " << i;
  }
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

std::string Name(at::ScalarType type, at::IntArrayRef sizes) {
  std::ostringstream text;
  text << type << sizes;
  return text.str();
}

TEST(FusedKernelsTest, Swiglu) {
  const auto op = Operator("shardplane::swiglu", &Swiglu);
  const auto fused = [&](const Tensors& x) {
    return Tensors{op.call(x[0], x[1])};
  };
  const auto calls = [](const Tensors& x) {
    return Tensors{Swiglu(x[0], x[1])};
  };
  for (const at::ScalarType type : kTypes) {
    for (const std::vector<int64_t>& sizes :
         Shapes{{3, 5}, {4, 16}, {2, 3, 1000}, {1}}) {
      ExpectClose(fused, calls,
                  {Values(sizes, type, 0), Values(sizes, type, 1)}, 2, {2},
                  Name(type, sizes));
    }
    // Halves of one tensor, as a packed projection has them.
    const at::Tensor both = Values({4, 32}, type, 0);
    ExpectClose(fused, calls, {both.slice(1, 0, 16), both.slice(1, 16)}, 2, {2},
                "halves");
  }
}

TEST(FusedKernelsTest, Rotary) {
  const auto op = Operator("shardplane::rotary", &Rotary);
  const auto fused = [&](const Tensors& x) {
    return Tensors{op.call(x[0], x[1], x[2])};
  };
  const auto calls = [](const Tensors& x) {
    return Tensors{Rotary(x[0], x[1], x[2])};
  };
  struct Case {
    std::vector<int64_t> x, factors;
  };
  for (const at::ScalarType type : kTypes) {
    for (const Case& c : {Case{{2, 3, 5, 6}, {1, 1, 5, 6}},
                          {{2, 3, 5, 32}, {2, 1, 5, 32}},
                          {{7, 16}, {7, 16}},
                          {{16}, {16}},
                          {{2, 3, 4, 16}, {4, 16}}}) {
      ExpectClose(fused, calls,
                  {Values(c.x, type, 0), Values(c.factors, type, 1),
                   Values(c.factors, type, 2)},
                  1, {2}, Name(type, c.x));
    }
    // As attention has it: heads were moved before positions.
    const at::Tensor moved = Values({2, 5, 3, 32}, type, 0).transpose(1, 2);
    ExpectClose(fused, calls,
                {moved, Values({1, 5, 32}, type, 1), Values({5, 32}, type, 2)},
                1, {2}, "moved");
    EXPECT_EQ(op.call(moved, Values({5, 32}, type, 1), Values({5, 32}, type, 2))
                  .strides(),
              moved.strides());
    // Not at the beginning of a pack.
    ExpectClose(fused, calls,
                {Values({6, 33}, type, 0).slice(1, 1), Values({6, 32}, type, 1),
                 Values({6, 32}, type, 2)},
                1, {2}, "aside");
  }
}

// Gradients of the factors, an odd length: as calls.
TEST(FusedKernelsTest, OtherRotaries) {
  const auto op = Operator("shardplane::rotary", &Rotary);
  const at::Tensor x = Values({2, 4}, at::kFloat, 0);
  ExpectClose(
      [&](const Tensors& x) { return Tensors{op.call(x[0], x[1], x[2])}; },
      [](const Tensors& x) { return Tensors{Rotary(x[0], x[1], x[2])}; },
      {x, Values({4}, at::kFloat, 1), Values({4}, at::kFloat, 2)}, 3, {0},
      "gradients of all");
  const at::Tensor odd = Values({3}, at::kFloat, 0);
  EXPECT_THROW(op.call(odd, odd, odd), c10::ValueError);
}

const std::vector<std::vector<int64_t>> kNormShapes = {
    {3, 8},    {2, 5, 7}, {4, 256},  {3, 2048}, {2, 2056},
    {1, 5000}, {600, 16}, {2, 8192}, {1, 300}};

TEST(FusedKernelsTest, CastRmsNorm) {
  const auto op = Operator("shardplane::cast_rms_norm", &CastRmsNorm);
  const auto fused = [&](const Tensors& x) {
    return Tensors{op.call(x[0], x[1], 1e-3, at::kFloat)};
  };
  const auto calls = [](const Tensors& x) {
    return Tensors{CastRmsNorm(x[0], x[1], 1e-3, at::kDouble)};
  };
  for (const at::ScalarType type : kTypes) {
    for (const auto& sizes : kNormShapes) {
      const int64_t columns = sizes.back();
      ExpectClose(fused, calls,
                  {Values(sizes, type, 0), Values({columns}, type, 1)}, 2,
                  {.launches = 2, .roundings = 2}, Name(type, sizes));
    }
  }
}

TEST(FusedKernelsTest, AddRmsNorm) {
  const auto op = Operator("shardplane::add_rms_norm", &AddRmsNorm);
  const auto both = [](const std::tuple<at::Tensor, at::Tensor>& results) {
    return Tensors{std::get<0>(results), std::get<1>(results)};
  };
  for (const std::optional<at::ScalarType> cast :
       {std::optional<at::ScalarType>(), std::optional(at::kFloat)}) {
    const std::optional<at::ScalarType> wide =
        cast.has_value() ? std::optional(at::kDouble) : std::nullopt;
    for (const at::ScalarType type : kTypes) {
      for (const auto& sizes : kNormShapes) {
        ExpectClose(
            [&](const Tensors& x) {
              return both(op.call(x[0], x[1], x[2], 1e-3, cast));
            },
            [&](const Tensors& x) {
              return both(AddRmsNorm(x[0], x[1], x[2], 1e-3, wide));
            },
            {Values(sizes, type, 0), Values(sizes, type, 1),
             Values({sizes.back()}, type, 2)},
            3, {.launches = 2, .roundings = 3}, Name(type, sizes));
      }
    }
  }
}

// Without a weight; with one that asks for no gradient; of one result alone.
TEST(FusedKernelsTest, NormsOfFewerGradients) {
  const auto op = Operator("shardplane::add_rms_norm", &AddRmsNorm);
  const auto run = [&](const Tensors& x, bool weight, bool sum, bool norm) {
    const auto found =
        op.call(x[0], x[1], weight ? std::optional(x[2]) : std::nullopt, 1e-3,
                std::nullopt);
    Tensors results;
    if (sum) results.push_back(std::get<0>(found));
    if (norm) results.push_back(std::get<1>(found));
    return results;
  };
  const auto calls = [](const Tensors& x, bool weight, bool sum, bool norm) {
    const auto found = AddRmsNorm(
        x[0], x[1], weight ? std::optional(x[2]) : std::nullopt, 1e-3, {});
    Tensors results;
    if (sum) results.push_back(std::get<0>(found));
    if (norm) results.push_back(std::get<1>(found));
    return results;
  };
  const Tensors inputs = {Values({3, 16}, at::kFloat, 0),
                          Values({3, 16}, at::kFloat, 1),
                          Values({16}, at::kFloat, 2)};
  struct Case {
    bool weight, sum, norm;
    int launches;
  };
  for (const auto& [weight, sum, norm, launches] : {Case{false, true, true, 2},
                                                    {true, true, true, 2},
                                                    {true, false, true, 2},
                                                    {true, true, false, 1}}) {
    ExpectClose([&](const Tensors& x) { return run(x, weight, sum, norm); },
                [&](const Tensors& x) { return calls(x, weight, sum, norm); },
                inputs, 2, {launches}, absl::StrCat(weight, sum, norm));
  }
}

// As part of a tensor may lie: too long to be read one by one.
TEST(FusedKernelsTest, LongRowsThatBeginWithinAPack) {
  const auto op = Operator("shardplane::add_rms_norm", &AddRmsNorm);
  const auto aside = [](int seed) {
    return Values({1, 4097}, at::kFloat, seed).slice(1, 1);
  };
  const at::Tensor weight = aside(2)[0];
  ASSERT_TRUE(aside(0).is_contiguous());
  // Gradients that lie so, too.
  const auto results = [&](const auto& norm, const Tensors& x) {
    const auto [sum, out] = norm(x[0], x[1], weight.to(x[0].scalar_type()));
    const at::Tensor wider = at::cat({sum, out}, 1);
    return Tensors{at::cat({sum.slice(1, 0, 1), out}, 1), wider};
  };
  ExpectClose(
      [&](const Tensors& x) {
        return results(
            [&](const at::Tensor& a, const at::Tensor& b, const at::Tensor& w) {
              return op.call(a, b, w, 1e-3, std::nullopt);
            },
            x);
      },
      [&](const Tensors& x) {
        return results(
            [](const at::Tensor& a, const at::Tensor& b, const at::Tensor& w) {
              return AddRmsNorm(a, b, w, 1e-3, std::nullopt);
            },
            x);
      },
      {aside(0), aside(1)}, 2, {.launches = 2, .roundings = 1}, "aside");
}

TEST(FusedKernelsTest, RowsThatAreTooLongRunAsCalls) {
  const auto op = Operator("shardplane::cast_rms_norm", &CastRmsNorm);
  for (const int64_t columns : {2049, 8196}) {  // of no packs, of packs
    const at::Tensor x = Values({2, columns}, at::kFloat, 0);
    KernelsInUse().Take();
    op.call(x, Values({columns}, at::kFloat, 1), 1e-3, at::kFloat);
    EXPECT_EQ(KernelsInUse().Take(), 0);
  }
}

TEST(FusedKernelsTest, F64RunsAsCalls) {
  const at::Tensor x = Values({2, 8}, at::kDouble, 0);
  const at::Tensor weight = Values({8}, at::kDouble, 0);
  const at::Tensor ids = at::tensor({3, 5}, at::kLong).to(TestDevice());
  KernelsInUse().Take();
  Operator("shardplane::swiglu", &Swiglu).call(x, x);
  Operator("shardplane::rotary", &Rotary).call(x, x, x);
  Operator("shardplane::cast_rms_norm", &CastRmsNorm)
      .call(x, weight, 1e-3, at::kDouble);
  Operator("shardplane::add_rms_norm", &AddRmsNorm)
      .call(x, x, weight, 1e-3, std::nullopt);
  Operator("shardplane::cross_entropy", &CrossEntropy)
      .call(x, ids, at::Reduction::Mean, -100, std::nullopt);
  EXPECT_EQ(KernelsInUse().Take(), 0);
}

at::Tensor Ids(const std::vector<int64_t>& ids) {
  return at::tensor(ids, at::kLong).to(TestDevice());
}

TEST(FusedKernelsTest, CrossEntropy) {
  const auto op = Operator("shardplane::cross_entropy", &CrossEntropy);
  for (const at::ScalarType type : kTypes) {
    for (const int64_t classes : {3, 64, 1000, 5003}) {
      for (const int64_t reduction :
           {at::Reduction::None, at::Reduction::Mean, at::Reduction::Sum}) {
        ExpectClose(
            [&](const Tensors& x) {
              return Tensors{op.call(x[0], x[1], reduction, 1, at::kFloat)};
            },
            [&](const Tensors& x) {
              return Tensors{
                  CrossEntropy(x[0], x[1], reduction, 1, at::kDouble)};
            },
            {Values({4, classes}, type, 0), Ids({0, 2, 1, classes - 1})}, 1,
            {2}, Name(type, {4, classes, reduction}));
      }
    }
  }
  // Rows that several dims count.
  ExpectClose(
      [&](const Tensors& x) {
        return Tensors{op.call(x[0], x[1], at::Reduction::Mean, 1, at::kFloat)};
      },
      [&](const Tensors& x) {
        return Tensors{CrossEntropy(x[0].reshape({6, 64}), x[1],
                                    at::Reduction::Mean, 1, at::kDouble)};
      },
      {Values({2, 3, 64}, at::kBFloat16, 0), Ids({0, 2, 1, 63, 9, 1})}, 1, {2},
      "rows of two dims");
  // In the type of the logits.
  const at::Tensor logits = Values({2, 8}, at::kBFloat16, 0);
  EXPECT_EQ(
      op.call(logits, Ids({0, 1}), at::Reduction::Mean, -100, {}).scalar_type(),
      at::kBFloat16);
}

TEST(FusedKernelsTest, CrossEntropyTerms) {
  const auto op =
      Operator("shardplane::cross_entropy_terms", &CrossEntropyTerms);
  for (const at::ScalarType type : kTypes) {
    const at::Tensor max = Values({2, 3}, at::kFloat, 4).add(2);
    ExpectClose(
        [&](const Tensors& x) {
          return Tensors{op.call(x[0], max, x[1], {}, -1, 16, 99, 20, 0)};
        },
        [&](const Tensors& x) {
          return Tensors{CrossEntropyTerms(x[0], max.to(at::kDouble), x[1], {},
                                           -1, 16, 99, 20, 0)};
        },
        {Values({2, 3, 24}, type, 0),
         Ids({16, 39, 20, 3, 98, 17}).view({2, 3})},
        1, {2}, Name(type, {}));
  }
}

TEST(FusedKernelsTest, OtherCrossEntropyTermsRunAsCalls) {
  const auto op =
      Operator("shardplane::cross_entropy_terms", &CrossEntropyTerms);
  const at::Tensor logits = Values({4, 4}, at::kFloat, 0);
  const at::Tensor max = Values({4}, at::kFloat, 1);
  const at::Tensor ids = Ids({0, 1, 2, 3});
  const auto launches = [&](auto... arguments) {
    KernelsInUse().Take();
    op.call(logits, max, arguments...);
    return KernelsInUse().Take();
  };
  EXPECT_EQ(launches(ids, std::nullopt, 1, 0, 4, -100, 0.0), 1);
  EXPECT_EQ(launches(ids, std::nullopt, 0, 0, 4, -100, 0.0), 0);
  EXPECT_EQ(launches(ids, std::nullopt, 1, 0, 4, -100, 0.1), 0);
  EXPECT_EQ(launches(logits, std::nullopt, 1, 0, 4, -100, 0.0), 0);
  EXPECT_EQ(
      launches(logits, std::optional<at::Tensor>(Values({4}, at::kFloat, 2)), 1,
               0, 4, -100, 0.0),
      0);
  EXPECT_THROW(launches(Ids({0, 1, 2, 4}), std::nullopt, 1, 0, 4, -100, 0.0),
               c10::IndexError);
  EXPECT_THROW(launches(ids, std::nullopt, 1, 1, 4, -100, 0.0),
               c10::ValueError);
}

TEST(FusedKernelsTest, CheckedIds) {
  const auto op = Operator("shardplane::checked_ids", &ReplaceBadIds);
  const int64_t far = int64_t{1} << 40;
  struct Case {
    std::vector<int64_t> ids;
    std::optional<int64_t> ignored;
  };
  for (const Case& c : {Case{{3, 0, 6, 2}, {}},
                        {{3, 7, 6, 2}, {}},
                        {{-1, 0, 6, 2}, {}},
                        {{-1, 0, 6, far}, -1},
                        {{-2, 0, 6, -100}, -100},
                        {{-far, 0, 6, -100}, -100}}) {
    for (const int64_t lowest : {-7, 0}) {
      // Enough that a block has not all of them.
      const at::Tensor ids = Ids(c.ids).repeat({1000}).view({8, 500});
      for (const at::Tensor& each : {ids, ids.t()}) {
        KernelsInUse().Take();
        const auto [found, bad] = op.call(each, lowest, 7, c.ignored);
        EXPECT_EQ(KernelsInUse().Take(), 1);
        const auto [expected, any] = ReplaceBadIds(each, lowest, 7, c.ignored);
        EXPECT_TRUE(found.equal(expected));
        EXPECT_TRUE(bad.equal(any));
      }
    }
  }
  op.call(Ids({1, 2}).to(at::kInt), 0, 7, {});
  EXPECT_EQ(KernelsInUse().Take(), 0);
}

// Bit for bit, masks and all: of parts along every dim.
TEST(FusedKernelsTest, Dropout) {
  const auto op = Operator("shardplane::dropout", &CounterDropout);
  struct Case {
    std::vector<int64_t> whole, offsets, part;
    double p;
    int launches = 2;
  };
  for (const Case& c :
       {Case{{5, 7}, {0, 0}, {5, 7}, 0.3},
        {{5, 7}, {1, 3}, {3, 2}, 0.5},
        {{4, 6, 8, 10}, {1, 0, 4, 0}, {2, 6, 4, 10}, 0.1},
        {{4, 6, 8, 10}, {1, 2, 4, 5}, {2, 3, 4, 5}, 0.1},
        {{2, 4, 6, 8, 10}, {1, 1, 2, 4, 5}, {1, 2, 3, 4, 5}, 0.1, 0},
        {{1000}, {1}, {998}, 0.9},
        {{9}, {0}, {9}, 0.0},
        {{9}, {0}, {9}, 1.0},
        {{3, 1000}, {0, 0}, {3, 1000}, 0.25}}) {
    for (const at::ScalarType type : kTypes) {
      const at::Tensor random =
          at::tensor({int64_t{1} << 40, (int64_t{5} << 33) + 3}, at::kLong);
      const at::Tensor here = random.to(TestDevice());
      KernelsInUse().Take();
      const Tensors found = ResultsAndGradients(
          [&](const Tensors& x) {
            return Tensors{op.call(x[0], here, c.p, 3, c.whole, c.offsets)};
          },
          {Values(c.part, type, 0)}, 1);
      EXPECT_EQ(KernelsInUse().Take(), c.launches);
      const Tensors exact = ResultsAndGradients(
          [&](const Tensors& x) {
            return Tensors{
                CounterDropout(x[0], random, c.p, 3, c.whole, c.offsets)};
          },
          {Values(c.part, type, 0)}, 1);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_TRUE(at::equal(found[i], exact[i])) << Name(type, c.part) << i;
      }
    }
  }
}

// As a worker runs them: without torch's engine.
TEST(FusedKernelsTest, GradientsOfASegment) {
  const auto value = [](ValueId id) { return ProgramArgument{ValueRef{id}}; };
  Segment segment{.inputs = {0, 1, 2},
                  .outputs = {4, 5},
                  .ops = {{.target = "shardplane.swiglu.default",
                           .args = {value(0), value(1)},
                           .results = {3}},
                          {.target = "shardplane.add_rms_norm.default",
                           .args = {value(3), value(1), value(2), {1e-3}, {}},
                           .results = {4, 5}}},
                  .differentiable_inputs = {0, 1, 2},
                  .differentiable_outputs = {4, 5}};
  const DeviceMesh mesh = *DeviceMesh::Create({{"tp", 1}});
  const auto prepared = PreparedSegment::Create(
      segment, {.mesh = &mesh, .coordinate = {0}, .device = TestDevice()});
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const Tensors inputs = {Values({3, 16}, at::kFloat, 0),
                          Values({3, 16}, at::kFloat, 1),
                          Values({16}, at::kFloat, 2)};
  KernelsInUse().Take();
  Tensors values = inputs;
  values.resize(6);
  SegmentRecording recording =
      prepared->Forward(absl::MakeSpan(values), Recording::kOn);
  const Tensors directions = {Values({3, 16}, at::kFloat, 3),
                              Values({3, 16}, at::kFloat, 4)};
  const Tensors found = prepared->Backward(recording, directions);
  EXPECT_EQ(KernelsInUse().Take(), 4);
  Tensors leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.to(at::kDouble).requires_grad_(true));
  }
  const auto [sum, norm] = AddRmsNorm(Swiglu(leaves[0], leaves[1]), leaves[1],
                                      leaves[2], 1e-3, std::nullopt);
  EXPECT_LE(Distance(values[4], sum), 4e-6);
  EXPECT_LE(Distance(values[5], norm), 4e-6);
  const Tensors exact = torch::autograd::grad(
      {sum, norm}, leaves,
      {directions[0].to(at::kDouble), directions[1].to(at::kDouble)});
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_LE(Distance(found[i], exact[i]), 4e-6) << i;
  }
}

}  // namespace
}  // namespace shardplane
