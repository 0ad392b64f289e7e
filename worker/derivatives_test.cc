#include "worker/derivatives.h"

#include <string>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/randn_like.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/segments.h"

namespace shardplane {
namespace {

ProgramArgument Ref(ValueId id) { return {ValueRef{id}}; }

Op Call(const std::string& name, std::vector<ProgramArgument> args,
        ValueId result) {
  return {
      .target = "aten." + name, .args = std::move(args), .results = {result}};
}

// Inputs are values 0, 1, ...; the last op's result is the output.
struct Example {
  const char* name;
  std::vector<Shape> inputs;
  std::vector<Op> ops;
  std::vector<ValueId> asking;
  std::vector<ValueId> late = {};
  bool by_columns = false;  // the first input
};

void PrintTo(const Example& example, std::ostream* out) {
  *out << example.name;
}

Segment SegmentOf(const Example& example) {
  Segment segment{.ops = example.ops, .differentiable_inputs = example.asking};
  for (size_t i = 0; i < example.inputs.size(); ++i) {
    segment.inputs.push_back(static_cast<ValueId>(i));
  }
  segment.outputs =
      segment.differentiable_outputs = {example.ops.back().results[0]};
  return segment;
}

// Results are matrices here, or nobody reads them as such.
std::vector<Value> ValuesOf(const Example& example, DType dtype) {
  std::vector<Value> values;
  for (const Shape& shape : example.inputs) {
    values.push_back({"", {dtype, shape}, {}});
  }
  for (size_t i = 0; i < example.ops.size(); ++i) {
    values.push_back({"", {dtype, {1, 1}}, {}});
  }
  return values;
}

std::vector<at::Tensor> InputsOf(const Example& example, at::ScalarType type) {
  at::manual_seed(7);
  std::vector<at::Tensor> inputs;
  for (const Shape& shape : example.inputs) {
    inputs.push_back(at::randn(shape, type));
  }
  if (example.by_columns) inputs[0] = inputs[0].t().contiguous().t();
  return inputs;
}

OperatorContext Anywhere() { return {.mesh = nullptr, .coordinate = {}}; }

struct Outcome {
  at::Tensor output;
  std::vector<at::Tensor> gradients;  // of what asks; late ones made
};

Outcome OutcomeOf(const Example& example, at::ScalarType type,
                  absl::Span<const Value> values) {
  auto segment = PreparedSegment::Create(SegmentOf(example), Anywhere(),
                                         example.late, values);
  EXPECT_THAT(segment, IsOk());
  EXPECT_EQ(segment->is_derived(), !values.empty());
  std::vector<at::Tensor> frame = InputsOf(example, type);
  frame.resize(example.inputs.size() + example.ops.size());
  SegmentRecording recording =
      segment->Forward(absl::MakeSpan(frame), Recording::kOn);
  Outcome outcome{.output = frame.back(), .gradients = {}};
  EXPECT_FALSE(outcome.output.requires_grad());
  at::manual_seed(8);
  outcome.gradients = segment->Backward(
      recording, std::vector<at::Tensor>{at::randn_like(outcome.output)});
  auto products = PreparedSegment::TakeProducts(std::move(recording));
  for (size_t i = 0; i < example.asking.size(); ++i) {
    const auto product = products.find(example.asking[i]);
    if (product == products.end()) continue;
    EXPECT_FALSE(outcome.gradients[i].defined());
    outcome.gradients[i] = product->second.Made();
  }
  return outcome;
}

class DerivativesTest : public testing::TestWithParam<Example> {};

TEST_P(DerivativesTest, AreAutogradsBitForBit) {
  for (const auto& [dtype, type] : {std::pair{DType::kFloat32, at::kFloat},
                                    std::pair{DType::kFloat64, at::kDouble}}) {
    const Outcome expected = OutcomeOf(GetParam(), type, {});
    const Outcome actual =
        OutcomeOf(GetParam(), type, ValuesOf(GetParam(), dtype));
    EXPECT_TRUE(actual.output.equal(expected.output));
    ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      EXPECT_EQ(actual.gradients[i].sizes(), expected.gradients[i].sizes());
      EXPECT_TRUE(actual.gradients[i].equal(expected.gradients[i])) << i;
    }
  }
}

const ProgramArgument kTwo{int64_t{2}};

std::vector<Op> TwoLayers() {
  return {Call("linear.default", {Ref(0), Ref(1), Ref(2)}, 4),
          Call("relu.default", {Ref(4)}, 5),
          Call("linear.default", {Ref(5), Ref(3)}, 6)};
}
std::vector<Op> PowerOf(const ProgramArgument& exponent) {
  return {Call("pow.Tensor_Scalar", {Ref(0), exponent}, 1)};
}

INSTANTIATE_TEST_SUITE_P(
    Ops, DerivativesTest,
    testing::Values(
        Example{"TwoLayers",
                {{4, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {0, 1, 2, 3}},
        Example{"TwoLayersOfData",
                {{4, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {1, 2, 3}},
        Example{"TwoLayersOfOneRow",
                {{1, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {0, 1, 2, 3}},
        Example{"TwoLayersOfNothing",
                {{0, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {0, 1, 2, 3}},
        Example{"TwoLayersByColumns",
                {{4, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {0, 1, 2, 3},
                {},
                true},
        Example{"LateWeights",
                {{4, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {0, 1, 2, 3},
                {1, 3}},
        Example{"LateWeightsOfData",
                {{4, 6}, {5, 6}, {5}, {3, 5}},
                TwoLayers(),
                {1, 3},
                {1, 3}},
        Example{
            "FrozenWeights", {{4, 6}, {5, 6}, {5}, {3, 5}}, TwoLayers(), {0}},
        Example{"SquareLoss",
                {{4, 6}, {6}, {4, 6}},
                {Call("add.Tensor", {Ref(0), Ref(1)}, 3),
                 Call("sub.Tensor", {Ref(3), Ref(2)}, 4),
                 Call("pow.Tensor_Scalar", {Ref(4), kTwo}, 5),
                 Call("mean.default", {Ref(5)}, 6)},
                {0, 1}},
        Example{"SubtractedAndBroadcast",
                {{4, 6}, {4, 1}},
                {Call("sub.Tensor", {Ref(0), Ref(1)}, 2),
                 Call("sum.default", {Ref(2)}, 3)},
                {0, 1}},
        Example{"Products",
                {{4, 6}, {6}},
                {Call("mul.Tensor", {Ref(0), Ref(1)}, 2),
                 Call("mul.Tensor", {Ref(2), Ref(2)}, 3),
                 Call("add.Tensor", {Ref(3), Ref(2)}, 4),
                 Call("mul.Tensor", {Ref(4), Ref(0)}, 5)},
                {0, 1}},
        Example{"AddedToItself",
                {{4, 6}},
                {Call("add.Tensor", {Ref(0), Ref(0)}, 1),
                 Call("relu.default", {Ref(1)}, 2),
                 Call("add.Tensor", {Ref(2), Ref(1)}, 3)},
                {0}},
        Example{"Squares", {{3, 3}}, PowerOf(kTwo), {0}},
        Example{"Cubes", {{3, 3}}, PowerOf({int64_t{3}}), {0}},
        Example{"RealPowers", {{3, 3}}, PowerOf({-3.0}), {0}},
        Example{"ZerothPowers", {{3, 3}}, PowerOf({int64_t{0}}), {0}},
        Example{"MeanOfMatrix",
                {{3, 3}},
                {Call("mean.default", {Ref(0)}, 1)},
                {0}}),
    [](const auto& info) { return std::string(info.param.name); });

bool IsDerived(const Example& example, DType dtype = DType::kFloat32) {
  return PreparedSegment::Create(SegmentOf(example), Anywhere(), example.late,
                                 ValuesOf(example, dtype))
      ->is_derived();
}

TEST(DerivativesTest, OthersAreAutograds) {
  const Example gelu{"", {{3, 3}}, {Call("gelu.default", {Ref(0)}, 1)}, {0}};
  EXPECT_FALSE(IsDerived(gelu));
  Example data = gelu;  // nothing before it asks for a gradient
  data.inputs.push_back({3, 3});
  data.ops[0].results = {2};
  data.ops.push_back(Call("mul.Tensor", {Ref(1), Ref(2)}, 3));
  data.asking = {1};
  EXPECT_TRUE(IsDerived(data));
  Example scaled{
      "", {{3, 3}, {3, 3}}, {Call("add.Tensor", {Ref(0), Ref(1)}, 2)}, {0}};
  EXPECT_TRUE(IsDerived(scaled));
  EXPECT_FALSE(IsDerived(scaled, DType::kBFloat16));
  EXPECT_FALSE(IsDerived(scaled, DType::kComplex64));
  scaled.ops[0].kwargs = {{"alpha", {int64_t{2}}}};
  EXPECT_FALSE(IsDerived(scaled));
  const Example scalar{
      "", {{3, 3}}, {Call("add.Tensor", {Ref(0), {1.5}}, 1)}, {0}};
  EXPECT_FALSE(IsDerived(scalar));
  const Example cube{"",
                     {{2, 4, 6}, {5, 6}},
                     {Call("linear.default", {Ref(0), Ref(1)}, 2)},
                     {0, 1}};
  EXPECT_FALSE(IsDerived(cube));
}

TEST(DerivativesTest, OperandsStayAsTheyWere) {
  const Example squares{"", {{3, 3}}, PowerOf(kTwo), {0}};
  auto segment = PreparedSegment::Create(SegmentOf(squares), Anywhere(), {},
                                         ValuesOf(squares, DType::kFloat32));
  ASSERT_THAT(segment, IsOk());
  const at::Tensor x = at::ones({3, 3});
  std::vector<at::Tensor> frame{x, {}};
  SegmentRecording recording =
      segment->Forward(absl::MakeSpan(frame), Recording::kOn);
  x.add_(1);
  EXPECT_THROW(
      segment->Backward(recording, std::vector<at::Tensor>{at::ones({3, 3})}),
      c10::Error);
}

}  // namespace
}  // namespace shardplane
