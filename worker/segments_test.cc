#include "worker/segments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/constant_pad_nd.h"
#include "ATen/ops/full.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/randn_like.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/tanh.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "tests/matchers.h"
#include "torch/csrc/autograd/autograd.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

ProgramArgument Ref(ValueId id) { return {ValueRef{id}}; }
ProgramArgument Int(int64_t i) { return {i}; }
ProgramArgument Ints(const std::vector<int64_t>& ints) {
  ProgramArgumentList list;
  for (const int64_t i : ints) list.push_back(Int(i));
  return {list};
}

const DeviceMesh& Mesh() {
  static const DeviceMesh* mesh =
      new DeviceMesh(*DeviceMesh::Create({{"tp", 4}}));
  return *mesh;
}
OperatorContext ContextOfRank(int rank) {
  return {.mesh = &Mesh(), .coordinate = {rank}};
}

// A segment of one op: inputs 0 … n-1, results after them.
absl::StatusOr<std::vector<at::Tensor>> CallOp(Op op,
                                               std::vector<at::Tensor> inputs,
                                               int results = 1, int rank = 0) {
  Segment segment;
  const int n = static_cast<int>(inputs.size());
  for (int i = 0; i < n; ++i) segment.inputs.push_back(i);
  for (int i = 0; i < results; ++i) {
    op.results.push_back(n + i);
    segment.outputs.push_back(n + i);
  }
  segment.ops.push_back(std::move(op));
  auto prepared = PreparedSegment::Create(segment, ContextOfRank(rank));
  if (!prepared.ok()) return prepared.status();
  inputs.resize(n + results);
  prepared->Forward(absl::MakeSpan(inputs), Recording::kOff);
  return std::vector<at::Tensor>(inputs.begin() + n, inputs.end());
}

struct OpCase {
  const char* name;
  Op op;
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> expected;
};

void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }

class OperatorTest : public testing::TestWithParam<OpCase> {};

TEST_P(OperatorTest, CallsTheOperator) {
  const OpCase& c = GetParam();
  auto results =
      CallOp(c.op, c.inputs, static_cast<int>(c.expected.size()), /*rank=*/2);
  ASSERT_THAT(results, IsOk());
  for (size_t i = 0; i < c.expected.size(); ++i) {
    EXPECT_TRUE((*results)[i].equal(c.expected[i]))
        << (*results)[i] << c.expected[i];
    EXPECT_EQ((*results)[i].scalar_type(), c.expected[i].scalar_type());
  }
}

const at::Tensor& X() {
  static const at::Tensor* x =
      new at::Tensor(at::arange(12, at::kFloat).view({3, 4}));
  return *x;
}

// What torch.export writes, argument by argument.
std::vector<OpCase> OpCases() {
  // 10 rows cut into 4 chunks: rank 2 has 3 of them, from row 6 on.
  const LocalSize rows{{{10, {0}}}};
  const LocalOffset row{10, {0}};
  return {
      {"TensorAndDefault",
       {.target = "aten.linear.default", .args = {Ref(0), Ref(1)}},
       {X(), X()},
       {at::linear(X(), X())}},
      {"NumberForATensorKeepsTheType",
       {.target = "aten.add.Tensor", .args = {Ref(0), {0.5}}},
       {X()},
       {X() + 0.5}},
      {"Scalar",
       {.target = "aten.pow.Tensor_Scalar", .args = {Ref(0), Int(2)}},
       {X()},
       {X().pow(2)}},
      {"IntAsFloat",
       {.target = "aten.layer_norm.default",
        .args = {Ref(0), Ints({4}), {}, {}, Int(1)}},
       {X()},
       {at::layer_norm(X(), {4}, {}, {}, 1.0)}},
      {"LocalSizeInAList",
       {.target = "aten.view.default",
        .args = {Ref(0), {ProgramArgumentList{{rows}, Int(4)}}}},
       {X().view({4, 3})},
       {X().view({3, 4})}},
      {"LocalOffset",
       {.target = "aten.add.Scalar", .args = {Ref(0), {row}}},
       {X()},
       {X() + 6}},
      {"LocalOffsetInAList",
       {.target = "aten.constant_pad_nd.default",
        .args = {Ref(0), {ProgramArgumentList{{row}, Int(1)}}}},
       {X()},
       {at::constant_pad_nd(X(), {6, 1})}},
      {"OperatorOfOurOwn",
       {.target = "shardplane.embedding.default",
        .args = {Ref(0), Ref(1), {row}, Int(10)}},
       {X(), at::tensor({6, 5, 8})},
       {at::stack({X()[0], at::zeros({4}), X()[2]})}},
      {"OneNumberForAList",
       {.target = "aten.sum.dim_IntList", .args = {Ref(0), Int(1)}},
       {X()},
       {X().sum(1)}},
      {"ListOfTensors",
       {.target = "aten.cat.default",
        .args = {{ProgramArgumentList{Ref(0), Ref(1)}}, Int(1)}},
       {X(), X()},
       {at::cat({X(), X()}, 1)}},
      {"ListOfOptionalTensors",
       {.target = "aten.index.Tensor",
        .args = {Ref(0), {ProgramArgumentList{{}, Ref(1)}}}},
       {X(), at::tensor({2, 0})},
       {X().index_select(1, at::tensor({2, 0}))}},
      {"ListOfResults",
       {.target = "aten.split.Tensor", .args = {Ref(0), Int(3), Int(1)}},
       {X()},
       {X().narrow(1, 0, 3), X().narrow(1, 3, 1)}},
      {"DTypeKeyword",
       {.target = "aten.sum.default",
        .args = {Ref(0)},
        .kwargs = {{"dtype", {DType::kFloat64}}}},
       {X()},
       {X().to(at::kDouble).sum()}},
      {"DeviceLayoutAndString",
       {.target = "aten.full.default",
        .args = {Ints({2}), {1.5}},
        .kwargs = {{"device", {std::string("cuda:7")}},
                   {"layout", {std::string("torch.strided")}},
                   {"pin_memory", {false}}}},
       {},
       {at::full({2}, 1.5)}},
      {"StringArgument",
       {.target = "aten.gelu.default",
        .args = {Ref(0)},
        .kwargs = {{"approximate", {std::string("tanh")}}}},
       {X()},
       {at::gelu(X(), "tanh")}},
      {"MemoryFormat",
       {.target = "aten.clone.default",
        .args = {Ref(0)},
        .kwargs = {{"memory_format", {std::string("contiguous_format")}}}},
       {X()},
       {X()}},
  };
}

INSTANTIATE_TEST_SUITE_P(Arguments, OperatorTest, testing::ValuesIn(OpCases()),
                         [](const auto& info) { return info.param.name; });

TEST(OperatorErrorTest, UnknownOperatorIsNotFound) {
  EXPECT_THAT(
      CallOp(
          {.target = "aten.linnear.default", .args = {Ref(0)}, .fqn = "net1"},
          {X()}),
      StatusIs(absl::StatusCode::kNotFound,
               HasSubstr("aten.linnear.default in net1")));
}

TEST(OperatorErrorTest, ArgumentOfAnotherKindNamesIt) {
  EXPECT_THAT(CallOp({.target = "aten.softmax.int",
                      .args = {Ref(0), {std::string("last")}},
                      .fqn = "attn"},
                     {X()}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::AllOf(HasSubstr("aten.softmax.int in attn"),
                                      HasSubstr("argument dim"))));
}

TEST(OperatorErrorTest, MissingArgument) {
  EXPECT_THAT(
      CallOp({.target = "aten.linear.default", .args = {Ref(0)}}, {X()}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("argument weight")));
}

TEST(OperatorErrorTest, UnknownKeyword) {
  EXPECT_THAT(CallOp({.target = "aten.relu.default",
                      .args = {Ref(0)},
                      .kwargs = {{"slope", {0.1}}}},
                     {X()}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("aten.relu.default")));
}

TEST(OperatorErrorTest, FailureOfTheOperatorNamesIt) {
  try {
    CallOp({.target = "aten.mm.default",
            .args = {Ref(0), Ref(0)},
            .fqn = "layers.0"},
           {X()})
        .IgnoreError();
    FAIL() << "expected an exception";
  } catch (const c10::Error& error) {
    EXPECT_THAT(std::string(error.what()),
                HasSubstr("aten.mm.default in layers.0"));
  }
}

// tanh(x w^T) * x, which uses x twice, and a second output that nobody needs.
Segment TwoUses() {
  return {.inputs = {0, 1},
          .outputs = {4, 5},
          .ops = {{"aten.linear.default", {Ref(0), Ref(1)}, {}, {2}, ""},
                  {"aten.tanh.default", {Ref(2)}, {}, {3}, ""},
                  {"aten.mul.Tensor", {Ref(3), Ref(0)}, {}, {4}, ""},
                  {"aten.neg.default", {Ref(2)}, {}, {5}, ""}},
          .differentiable_inputs = {0, 1},
          .differentiable_outputs = {4, 5}};
}

TEST(SegmentTest, GradientsAreThoseOfAutograd) {
  const at::Tensor x = at::arange(9, at::kDouble).view({3, 3}) / 10;
  const at::Tensor w = at::arange(9, at::kDouble).view({3, 3}).cos();
  const at::Tensor seed = at::arange(9, at::kDouble).view({3, 3}).sin();
  auto segment = PreparedSegment::Create(TwoUses(), ContextOfRank(0));
  ASSERT_THAT(segment, IsOk());
  std::vector<at::Tensor> values{x, w, {}, {}, {}, {}};
  SegmentRecording recording =
      segment->Forward(absl::MakeSpan(values), Recording::kOn);
  EXPECT_FALSE(values[4].requires_grad());
  EXPECT_FALSE(values[2].defined());  // inner values do not leave it

  const at::Tensor x2 = x.clone().requires_grad_();
  const at::Tensor w2 = w.clone().requires_grad_();
  const at::Tensor y2 = at::tanh(at::linear(x2, w2)) * x2;
  EXPECT_TRUE(values[4].equal(y2));
  const auto expected = torch::autograd::grad({y2}, {x2, w2}, {seed});
  const std::vector<at::Tensor> gradients =
      segment->Backward(recording, std::vector<at::Tensor>{seed, {}});
  ASSERT_EQ(gradients.size(), 2u);
  EXPECT_TRUE(gradients[0].equal(expected[0]));
  EXPECT_TRUE(gradients[1].equal(expected[1]));
}

// Of relu(x w^T + b) v^T, which is `hidden` wide inside, for x of that shape.
void ExpectLateGradients(int64_t hidden, const Shape& shape) {
  const Segment segment{
      .inputs = {0, 1, 2, 3},
      .outputs = {6},
      .ops = {{"aten.linear.default", {Ref(0), Ref(1), Ref(2)}, {}, {4}, ""},
              {"aten.relu.default", {Ref(4)}, {}, {5}, ""},
              {"aten.linear.default", {Ref(5), Ref(3)}, {}, {6}, ""}},
      .differentiable_inputs = {0, 1, 2, 3},
      .differentiable_outputs = {6}};
  const auto prepared =
      PreparedSegment::Create(segment, ContextOfRank(0), {1, 3});
  ASSERT_THAT(prepared, IsOk());
  std::vector<at::Tensor> leaves{at::randn(shape), at::randn({hidden, 6}),
                                 at::randn({hidden}), at::randn({7, hidden})};
  std::vector<at::Tensor> values = leaves;
  values.resize(7);
  SegmentRecording recording =
      prepared->Forward(absl::MakeSpan(values), Recording::kOn);
  const at::Tensor seed = at::randn_like(values[6]);
  const std::vector<at::Tensor> gradients =
      prepared->Backward(recording, std::vector<at::Tensor>{seed});
  const auto late = PreparedSegment::TakeProducts(std::move(recording));
  for (at::Tensor& leaf : leaves) leaf = leaf.clone().requires_grad_();
  const auto expected = torch::autograd::grad(
      {at::linear(at::linear(leaves[0], leaves[1], leaves[2]).relu(),
                  leaves[3])},
      leaves, {seed});
  EXPECT_TRUE(gradients[0].equal(expected[0]));
  EXPECT_TRUE(late.at(1).Made().equal(expected[1]));
  EXPECT_TRUE(gradients[2].equal(expected[2]));
  EXPECT_TRUE(late.at(3).Made().equal(expected[3]));
  EXPECT_FALSE(gradients[1].defined() || gradients[3].defined());
}

TEST(SegmentTest, LateWeightGradientsAreThoseOfAutograd) {
  for (const Shape& shape : {Shape{6}, Shape{4, 6}, Shape{2, 3, 6}}) {
    ExpectLateGradients(5, shape);
  }
}

// Nothing before the op asks for a gradient, and its weight does not while it
// is late.
TEST(SegmentTest, ALateWeightMayBeAllThatAsksForAGradient) {
  const Segment segment{
      .inputs = {0, 1},
      .outputs = {3},
      .ops = {{"aten.linear.default", {Ref(0), Ref(1)}, {}, {2}, ""},
              {"aten.relu.default", {Ref(2)}, {}, {3}, ""}},
      .differentiable_inputs = {1},
      .differentiable_outputs = {3}};
  for (const size_t ops : {1, 2}) {  // also where the output is the op's own
    Segment part = segment;
    part.ops.resize(ops);
    const ValueId last = part.ops.back().results[0];
    part.outputs = part.differentiable_outputs = {last};
    const auto prepared = PreparedSegment::Create(part, ContextOfRank(0), {1});
    ASSERT_THAT(prepared, IsOk());
    const at::Tensor x = at::randn({2, 3, 6});
    at::Tensor weight = at::randn({5, 6});
    std::vector<at::Tensor> values{x, weight, {}, {}};
    SegmentRecording recording =
        prepared->Forward(absl::MakeSpan(values), Recording::kOn);
    const at::Tensor seed = at::randn({2, 3, 5});
    const std::vector<at::Tensor> gradients =
        prepared->Backward(recording, std::vector<at::Tensor>{seed});
    EXPECT_FALSE(gradients[0].defined());
    const auto late = PreparedSegment::TakeProducts(std::move(recording));
    weight.requires_grad_();
    const at::Tensor y = at::linear(x, weight);
    const auto expected =
        torch::autograd::grad({ops == 1 ? y : y.relu()}, {weight}, {seed});
    EXPECT_TRUE(late.at(1).Made().equal(expected[0]));
  }
}

// A rank may have no part of a dim.
TEST(SegmentTest, LateWeightGradientsOfNothing) {
  for (const Shape& shape : {Shape{0, 6}, Shape{2, 0, 6}}) {
    ExpectLateGradients(5, shape);
  }
  for (const Shape& shape : {Shape{6}, Shape{4, 6}, Shape{2, 3, 6}}) {
    ExpectLateGradients(0, shape);
  }
}

TEST(SegmentTest, ALateWeightIsThatOfOneLinearAlone) {
  EXPECT_THAT(PreparedSegment::Create(TwoUses(), ContextOfRank(0), {1}),
              IsOk());
  for (const std::vector<ValueId>& late :
       {std::vector<ValueId>{0}, std::vector<ValueId>{0, 1}}) {
    EXPECT_THAT(PreparedSegment::Create(TwoUses(), ContextOfRank(0), late),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("one linear's alone")));
  }
}

TEST(SegmentTest, ALateWeightsInputStaysAsItWas) {
  const auto prepared =
      PreparedSegment::Create(TwoUses(), ContextOfRank(0), {1});
  ASSERT_THAT(prepared, IsOk());
  const at::Tensor x = at::ones({3, 3});
  std::vector<at::Tensor> values{x, at::ones({3, 3}), {}, {}, {}, {}};
  SegmentRecording recording =
      prepared->Forward(absl::MakeSpan(values), Recording::kOn);
  prepared->Backward(recording, std::vector<at::Tensor>{at::ones({3, 3}), {}});
  x.add_(1);
  EXPECT_THROW(PreparedSegment::TakeProducts(std::move(recording)), c10::Error);
}

// The second output alone has a gradient, which does not reach the product.
TEST(SegmentTest, ALateWeightThatNothingReachesHasNoGradient) {
  Segment segment = TwoUses();
  segment.ops[3].args = {Ref(0)};
  const auto prepared = PreparedSegment::Create(segment, ContextOfRank(0), {1});
  ASSERT_THAT(prepared, IsOk());
  std::vector<at::Tensor> values{X(), X(), {}, {}, {}, {}};
  values[1] = at::ones({X().size(1), X().size(1)});
  SegmentRecording recording =
      prepared->Forward(absl::MakeSpan(values), Recording::kOn);
  prepared->Backward(recording,
                     std::vector<at::Tensor>{{}, at::ones_like(X())});
  EXPECT_TRUE(PreparedSegment::TakeProducts(std::move(recording)).empty());
}

TEST(SegmentTest, InputThatNothingReachesGetsZeros) {
  auto segment = PreparedSegment::Create(
      {.inputs = {0, 1},
       .outputs = {2, 3},
       .ops = {{"aten.neg.default", {Ref(0)}, {}, {2}, ""},
               {"aten.neg.default", {Ref(1)}, {}, {3}, ""}},
       .differentiable_inputs = {0, 1},
       .differentiable_outputs = {2, 3}},
      ContextOfRank(0));
  std::vector<at::Tensor> values{X(), X(), {}, {}};
  SegmentRecording recording =
      segment->Forward(absl::MakeSpan(values), Recording::kOn);
  const std::vector<at::Tensor> gradients =
      segment->Backward(recording, std::vector<at::Tensor>{X(), {}});
  EXPECT_TRUE(gradients[0].equal(-X()));
  EXPECT_TRUE(gradients[1].equal(at::zeros_like(X())));
}

TEST(SegmentTest, NothingIsRecordedWhenItIsOff) {
  auto segment = PreparedSegment::Create(TwoUses(), ContextOfRank(0));
  const at::Tensor x = at::ones({2, 3});
  std::vector<at::Tensor> values{x, at::ones({3, 3}), {}, {}, {}, {}};
  const SegmentRecording recording =
      segment->Forward(absl::MakeSpan(values), Recording::kOff);
  EXPECT_TRUE(recording.inputs.empty() && recording.outputs.empty());
}

}  // namespace
}  // namespace shardplane
