#include "worker/optimizers.h"

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/full.h"
#include "ATen/ops/maximum.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "ATen/record_function.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

OptimizerOptions Of(Hyperparameters values) { return {std::move(values), {}}; }

// torch.optim.SGD, as its documentation writes it.
struct ReferenceSgd {
  SgdOptions o;
  at::Tensor parameter;
  at::Tensor buffer;

  void Step(at::Tensor g) {
    if (o.maximize) g = -g;
    if (o.weight_decay != 0) g = g + o.weight_decay * parameter;
    if (o.momentum != 0) {
      buffer = buffer.defined() ? o.momentum * buffer + (1 - o.dampening) * g
                                : g.clone();
      g = o.nesterov ? g + o.momentum * buffer : buffer;
    }
    parameter = parameter - o.lr * g;
  }
};

// torch.optim.Adam and AdamW, likewise.
struct ReferenceAdam {
  AdamOptions o;
  at::Tensor parameter;
  at::Tensor m;
  at::Tensor v;
  at::Tensor max_v;
  int t = 0;

  void Step(at::Tensor g) {
    if (t++ == 0) m = v = max_v = at::zeros_like(g);
    if (o.maximize) g = -g;
    if (o.kind == AdamKind::kAdamW) {
      parameter = parameter * (1 - o.lr * o.weight_decay);
    } else {
      g = g + o.weight_decay * parameter;
    }
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    max_v = at::maximum(max_v, v);
    const at::Tensor v_hat =
        (o.amsgrad ? max_v : v) / (1 - std::pow(o.beta2, t));
    const at::Tensor m_hat = m / (1 - std::pow(o.beta1, t));
    parameter = parameter - o.lr * m_hat / (v_hat.sqrt() + o.eps);
  }
};

// How often `body` calls an operator.
std::string counted_operator;
int operator_calls = 0;
int CallsOf(const std::string& name, const std::function<void()>& body) {
  counted_operator = name;
  operator_calls = 0;
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback([](const at::RecordFunction& function)
                                     -> std::unique_ptr<at::ObserverContext> {
        if (function.name() == counted_operator) ++operator_calls;
        return nullptr;
      }));
  body();
  at::removeCallback(handle);
  return operator_calls;
}

struct Precision {
  at::ScalarType type;
  double tolerance;
};
// Of f16 and bf16: their rounding over four steps.
const Precision kPrecisions[] = {{at::kDouble, 1e-12},
                                 {at::kFloat, 1e-5},
                                 {at::kBFloat16, 5e-2},
                                 {at::kHalf, 1e-2}};

// Four updates of `size` elements, as the optimizer and as `reference` make
// them, from the same start with the same gradients.
template <typename Reference>
void ExpectSameUpdates(const Hyperparameters& values, Reference reference,
                       const Precision& precision, int64_t size) {
  const auto [type, tolerance] = precision;
  const c10::Device device(DeviceForTest(0));
  const auto f64 = at::TensorOptions(at::kDouble).device(device);
  const at::Tensor start = at::arange(size, f64).cos().to(type);
  reference.parameter = start.to(at::kDouble);
  Optimizers optimizers;
  const at::Tensor empty = start.narrow(0, 0, 0).contiguous();
  const NamedTensors parameters{{"w", start.clone()}, {"empty", empty}};
  for (int step = 0; step < 4; ++step) {
    const at::Tensor gradient =
        (at::arange(size, f64) + 2 * step).sin().to(type);
    reference.Step(gradient.to(at::kDouble));
    const NamedTensors gradients{{"w", gradient.clone()}, {"empty", empty}};
    ASSERT_THAT(optimizers.Apply(Of(values), parameters, gradients), IsOk());
    EXPECT_TRUE(gradients.at("w").equal(gradient)) << "gradients stay";
  }
  EXPECT_TRUE(at::allclose(parameters.at("w").to(at::kDouble),
                           reference.parameter, tolerance, tolerance))
      << type << ", " << size << " elements:\n"
      << parameters.at("w") << "\nexpected\n"
      << reference.parameter;
}

// Sizes around a vector register of each type, and beyond.
template <typename Reference>
void ExpectSameUpdates(const Hyperparameters& values,
                       const Reference& reference) {
  for (const Precision& precision : kPrecisions) {
    for (const int64_t size : {1, 7, 16, 17, 37, 1025}) {
      ExpectSameUpdates(values, reference, precision, size);
    }
  }
}

struct SgdCase {
  const char* name;
  SgdOptions options;
};

class SgdTest : public testing::TestWithParam<SgdCase> {};

TEST_P(SgdTest, UpdatesAsTorchDoes) {
  ExpectSameUpdates(GetParam().options, ReferenceSgd{GetParam().options});
}

INSTANTIATE_TEST_SUITE_P(
    Options, SgdTest,
    testing::Values(
        SgdCase{"Plain", {.lr = 0.25}},
        SgdCase{"Momentum", {.lr = 0.1, .momentum = 0.9}},
        SgdCase{"Dampening", {.lr = 0.1, .momentum = 0.9, .dampening = 0.3}},
        SgdCase{"Nesterov", {.lr = 0.1, .momentum = 0.9, .nesterov = true}},
        SgdCase{"WeightDecay", {.lr = 0.1, .weight_decay = 0.05}},
        SgdCase{"All",
                {.lr = 0.1,
                 .momentum = 0.8,
                 .weight_decay = 0.05,
                 .nesterov = true,
                 .maximize = true}}),
    [](const auto& info) { return info.param.name; });

struct AdamCase {
  const char* name;
  AdamOptions options;
};

class AdamTest : public testing::TestWithParam<AdamCase> {};

TEST_P(AdamTest, UpdatesAsTorchDoes) {
  for (const AdamKind kind : {AdamKind::kAdam, AdamKind::kAdamW}) {
    AdamOptions options = GetParam().options;
    options.kind = kind;
    SCOPED_TRACE(KindName(options));
    ExpectSameUpdates(options, ReferenceAdam{options});
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, AdamTest,
    testing::Values(AdamCase{"Plain", {.lr = 0.1}},
                    AdamCase{"Betas", {.lr = 0.1, .beta1 = 0.5, .beta2 = 0.75}},
                    AdamCase{"WithoutMemory",
                             {.lr = 0.1, .beta1 = 0, .beta2 = 0, .eps = 0.5}},
                    AdamCase{"WeightDecay", {.lr = 0.1, .weight_decay = 0.25}},
                    AdamCase{"Amsgrad",
                             {.lr = 0.1, .beta2 = 0.5, .amsgrad = true}},
                    AdamCase{"Maximize", {.lr = 0.1, .maximize = true}},
                    AdamCase{"All",
                             {.lr = 0.1,
                              .beta1 = 0.8,
                              .beta2 = 0.5,
                              .eps = 1e-3,
                              .weight_decay = 0.1,
                              .amsgrad = true,
                              .maximize = true}}),
    [](const auto& info) { return info.param.name; });

struct ProductCase {
  const char* name;
  Hyperparameters values;
  bool added;  // not made
};

class ProductTest : public testing::TestWithParam<ProductCase> {};

// Three updates by gradients that are products, and by the same gradients made.
TEST_P(ProductTest, UpdatesAsItsGradientDoes) {
  const OptimizerOptions options = Of(GetParam().values);
  const c10::Device device(DeviceForTest(0));
  const auto f64 = at::TensorOptions(at::kDouble).device(device);
  const NamedTensors own{{"b", at::ones({5}, f64)},
                         {"w", at::arange(35, f64).view({5, 7}) / 9}};
  const NamedTensors expected{{"b", own.at("b").clone()},
                              {"w", own.at("w").clone()}};
  Optimizers by_product;
  Optimizers by_gradient;
  for (int step = 1; step <= 3; ++step) {
    const WeightProduct product{
        .input = (at::arange(42, f64) * step).cos().view({2, 3, 7}),
        .gradient = (at::arange(30, f64) * step).sin().view({2, 3, 5})};
    const at::Tensor bias = at::full({5}, step, f64);
    NamedTensors gradients{{"b", bias}};
    EXPECT_EQ(CallsOf("aten::mm",
                      [&] {
                        ASSERT_THAT(by_product.Apply(options, own, gradients,
                                                     {{"w", product}}),
                                    IsOk());
                      }),
              GetParam().added ? 0 : 1);
    gradients["w"] = product.Made();
    ASSERT_THAT(by_gradient.Apply(options, expected, gradients), IsOk());
    for (const auto& [fqn, tensor] : own) {
      EXPECT_TRUE(at::allclose(tensor, expected.at(fqn), 1e-14, 1e-14)) << fqn;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, ProductTest,
    testing::Values(
        ProductCase{"Plain", SgdOptions{.lr = 0.25}, true},
        ProductCase{"WeightDecay", SgdOptions{.lr = 0.1, .weight_decay = 0.5},
                    true},
        ProductCase{
            "Maximize",
            SgdOptions{.lr = 0.1, .weight_decay = 0.5, .maximize = true}, true},
        ProductCase{"Momentum", SgdOptions{.lr = 0.1, .momentum = 0.9}, false},
        ProductCase{"Adam", AdamOptions{.lr = 0.1}, false}),
    [](const auto& info) { return info.param.name; });

TEST(OptimizersTest, ParameterThatJoinsLaterHasItsOwnFirstStep) {
  const OptimizerOptions options = Of(SgdOptions{.lr = 1, .momentum = 0.5});
  Optimizers optimizers;
  NamedTensors parameters{{"a", at::zeros({2})}, {"b", at::zeros({2})}};
  const at::Tensor one = at::ones({2});
  ASSERT_THAT(optimizers.Apply(options, parameters, {{"a", one}}), IsOk());
  ASSERT_THAT(optimizers.Apply(options, parameters, {{"a", one}, {"b", one}}),
              IsOk());
  // a: 1, then 1 + 0.5; b: 1.
  EXPECT_TRUE(parameters["a"].equal(at::full({2}, -2.5)));
  EXPECT_TRUE(parameters["b"].equal(at::full({2}, -1.0)));
  optimizers.Reset();
  ASSERT_THAT(optimizers.Apply(options, parameters, {{"a", one}}), IsOk());
  EXPECT_TRUE(parameters["a"].equal(at::full({2}, -3.5)));
}

TEST(OptimizersTest, AdamCountsStepsOfEachParameter) {
  const AdamOptions options{.lr = 1, .beta1 = 0.5, .eps = 0};
  Optimizers optimizers;
  NamedTensors parameters{{"a", at::zeros({1}, at::kDouble)},
                          {"b", at::zeros({1}, at::kDouble)}};
  const at::Tensor one = at::ones({1}, at::kDouble);
  const at::Tensor two = at::full({1}, 2.0, at::kDouble);
  ASSERT_THAT(optimizers.Apply(Of(options), parameters, {{"a", one}}), IsOk());
  ASSERT_THAT(
      optimizers.Apply(Of(options), parameters, {{"a", two}, {"b", two}}),
      IsOk());
  // The first step of b is one of lr; the second of a is not.
  EXPECT_NEAR(parameters["b"].item<double>(), -1, 1e-12);
  ReferenceAdam reference{options, at::zeros({1}, at::kDouble)};
  reference.Step(one);
  reference.Step(two);
  EXPECT_TRUE(at::allclose(parameters["a"], reference.parameter, 1e-12, 0));
  EXPECT_GT(std::abs(parameters["a"].item<double>() + 2), 0.01);
}

TEST(OptimizersTest, NewHyperparametersGoOnWithTheState) {
  ReferenceAdam reference{{.lr = 0.5, .beta2 = 0.5},
                          at::zeros({3}, at::kDouble)};
  Optimizers optimizers;
  const NamedTensors parameters{{"w", at::zeros({3}, at::kDouble)}};
  for (const double lr : {0.5, 0.25, 0.125}) {
    const at::Tensor gradient = at::full({3}, lr, at::kDouble);
    reference.o.lr = lr;
    reference.Step(gradient);
    ASSERT_THAT(
        optimizers.Apply(Of(reference.o), parameters, {{"w", gradient}}),
        IsOk());
  }
  EXPECT_TRUE(
      at::allclose(parameters.at("w"), reference.parameter, 1e-12, 1e-12));
}

TEST(OptimizersTest, AmsgradTurnedOnLaterBeginsThere) {
  ReferenceAdam reference{{.lr = 0.5, .beta2 = 0.5},
                          at::zeros({3}, at::kDouble)};
  Optimizers optimizers;
  const NamedTensors parameters{{"w", at::zeros({3}, at::kDouble)}};
  const double gradients[] = {8, 1, 0.5, 0.25};
  for (int step = 0; step < 4; ++step) {
    if (step == 2) {
      reference.o.amsgrad = true;
      reference.max_v.zero_();
    }
    const at::Tensor gradient = at::full({3}, gradients[step], at::kDouble);
    reference.Step(gradient);
    ASSERT_THAT(
        optimizers.Apply(Of(reference.o), parameters, {{"w", gradient}}),
        IsOk());
  }
  EXPECT_TRUE(
      at::allclose(parameters.at("w"), reference.parameter, 1e-12, 1e-12));
}

TEST(OptimizersTest, AnotherKindIsRefusedUntilReset) {
  Optimizers optimizers;
  const NamedTensors parameters{{"w", at::zeros({2})}};
  const NamedTensors gradients{{"w", at::ones({2})}};
  ASSERT_THAT(optimizers.Apply(Of(SgdOptions{.lr = 1}), parameters, gradients),
              IsOk());
  const OptimizerOptions adam = Of(AdamOptions{.lr = 1, .eps = 0});
  EXPECT_THAT(optimizers.Apply(adam, parameters, gradients),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("expected SGD, of which there is state "
                                       "until it is reset; got: Adam")),
                    HasReason("OPTIMIZER_KIND_DIFFERS"),
                    HasMetadata("expected", "SGD")));
  EXPECT_TRUE(parameters.at("w").equal(at::full({2}, -1.0)));
  optimizers.Reset();
  ASSERT_THAT(optimizers.Apply(adam, parameters, gradients), IsOk());
  EXPECT_TRUE(at::allclose(parameters.at("w"), at::full({2}, -2.0)));
  EXPECT_THAT(
      optimizers.Apply(Of(AdamOptions{.kind = AdamKind::kAdamW}), parameters,
                       gradients),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("got: AdamW")));
}

TEST(OptimizersTest, GroupsTakeValuesOfTheirOwn) {
  NamedTensors parameters;
  NamedTensors gradients;
  for (const char* fqn : {"a.bias", "a.weight", "b.bias", "b.weight"}) {
    parameters[fqn] = at::ones({2});
    gradients[fqn] = at::full({2}, 2.0);
  }
  gradients.erase("b.weight");
  const OptimizerOptions options{
      SgdOptions{.lr = 1},
      {{{"*.bias"}, SgdOptions{.lr = 0.5}}, {{"a.*"}, SgdOptions{.lr = 2}}}};
  ASSERT_THAT(Optimizers().Apply(options, parameters, gradients), IsOk());
  EXPECT_TRUE(parameters["a.bias"].equal(at::full({2}, 0.0)));
  EXPECT_TRUE(parameters["a.weight"].equal(at::full({2}, -3.0)));
  EXPECT_TRUE(parameters["b.bias"].equal(at::full({2}, 0.0)));
  EXPECT_TRUE(parameters["b.weight"].equal(at::ones({2}))) << "no gradient";
}

TEST(OptimizersTest, GroupsMayChangeFromUpdateToUpdate) {
  NamedTensors parameters{{"a", at::ones({1})}, {"b", at::ones({1})}};
  NamedTensors gradients{{"a", at::ones({1})}, {"b", at::ones({1})}};
  Optimizers optimizers;
  const auto update = [&](const std::string& pattern, double lr) {
    const OptimizerOptions options{SgdOptions{.lr = 1},
                                   {{{pattern}, SgdOptions{.lr = lr}}}};
    EXPECT_THAT(optimizers.Check(options, parameters), IsOk());
    EXPECT_THAT(optimizers.Apply(options, parameters, gradients), IsOk());
    std::vector<double> values;
    for (const auto& [fqn, parameter] : parameters) {
      values.push_back(parameter.item<double>());
    }
    return values;
  };
  EXPECT_THAT(update("a", 0.5), ElementsAre(0.5, 0));
  EXPECT_THAT(update("a", 0.25), ElementsAre(0.25, -1));
  EXPECT_THAT(update("b", 0.25), ElementsAre(-0.75, -1.25));
  parameters.erase("a");
  EXPECT_THAT(update("b", 0.25), ElementsAre(-1.5));
  EXPECT_THAT(optimizers.Check({SgdOptions{.lr = 1}, {{{"a"}, SgdOptions()}}},
                               parameters),
              HasReason("PATTERN_WITHOUT_MATCH"));
}

TEST(OptimizersTest, PatternWithoutMatchChangesNothing) {
  const NamedTensors parameters{{"a.bias", at::ones({2})}};
  const NamedTensors gradients{{"a.bias", at::ones({2})}};
  const OptimizerOptions options{SgdOptions{.lr = 1},
                                 {{{"a.bia"}, SgdOptions{.lr = 0.5}}}};
  EXPECT_THAT(
      Optimizers().Apply(options, parameters, gradients),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a.bias")),
            HasReason("PATTERN_WITHOUT_MATCH")));
  EXPECT_TRUE(parameters.at("a.bias").equal(at::ones({2})));
}

// How often ATen's fused kernel of AdamW is called by `body`.
TEST(OptimizersTest, EqualHyperparametersShareACall) {
  NamedTensors parameters;
  NamedTensors gradients;
  for (int i = 0; i < 6; ++i) {
    const std::string fqn = std::string(1, static_cast<char>('a' + i));
    const at::ScalarType type = i < 4 ? at::kFloat : at::kDouble;
    parameters[fqn] = at::ones({2}, type);
    gradients[fqn] = at::ones({2}, type);
  }
  const AdamOptions adamw{.kind = AdamKind::kAdamW, .lr = 1};
  AdamOptions half = adamw;
  half.lr = 0.5;
  Optimizers optimizers;
  const auto calls = [&](std::vector<ParameterGroup> groups) {
    return CallsOf("aten::_fused_adamw_", [&] {
      EXPECT_THAT(
          optimizers.Apply({adamw, std::move(groups)}, parameters, gradients),
          IsOk());
    });
  };
  EXPECT_EQ(calls({}), 2);  // f32 and f64
  EXPECT_EQ(calls({{{"a"}, adamw}, {{"b"}, adamw}}), 2);
  EXPECT_EQ(calls({{{"a"}, half}, {{"b"}, half}}), 3);
}

TEST(OptimizersTest, RefusesBadOptions) {
  EXPECT_THAT(Optimizers().Apply(Of(SgdOptions{.lr = -1}), {}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lr")));
}

}  // namespace
}  // namespace shardplane
