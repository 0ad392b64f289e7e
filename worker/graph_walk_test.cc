#include "worker/graph_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/embedding.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/mm.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "ATen/ops/softmax.h"
#include "ATen/ops/tensor.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/grad_mode.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;

Tensors Engine(const Tensors& outputs, const Tensors& gradients,
               const Tensors& inputs) {
  return torch::autograd::grad(outputs, inputs, gradients,
                               /*retain_graph=*/false, /*create_graph=*/false,
                               /*allow_unused=*/true);
}

std::vector<torch::autograd::Edge> Edges(const Tensors& tensors) {
  std::vector<torch::autograd::Edge> edges;
  for (const at::Tensor& tensor : tensors) edges.push_back(EdgeOf(tensor));
  return edges;
}

Tensors WalkGraph(const Tensors& outputs, const Tensors& gradients,
                  const Tensors& inputs) {
  return shardplane::WalkGraph(Edges(outputs), gradients, Edges(inputs));
}

// The same values, asking for a gradient, in a graph of its own.
Tensors Leaves(const Tensors& values) {
  Tensors leaves;
  for (const at::Tensor& value : values) {
    leaves.push_back(value.clone());
    if (at::isFloatingType(value.scalar_type())) {
      leaves.back().requires_grad_(true);
    }
  }
  return leaves;
}

Tensors ThatAsk(const Tensors& tensors) {
  Tensors asking;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.requires_grad()) asking.push_back(tensor);
  }
  return asking;
}

Tensors Normal(const Tensors& like) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  Tensors normal;
  for (const at::Tensor& tensor : like) {
    normal.push_back(at::randn(tensor.sizes(), generator, tensor.options()));
  }
  return normal;
}

using Build = std::function<Tensors(const Tensors&)>;

// The gradients of both, of a graph each.
void ExpectEngines(const Tensors& values, const Build& build) {
  const Tensors ours = Leaves(values);
  const Tensors theirs = Leaves(values);
  const Tensors outputs = ThatAsk(build(ours));
  const Tensors gradients = Normal(outputs);
  const Tensors got = WalkGraph(outputs, gradients, ThatAsk(ours));
  const Tensors expected =
      Engine(ThatAsk(build(theirs)), gradients, ThatAsk(theirs));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].defined(), expected[i].defined()) << "of input " << i;
    if (!got[i].defined()) continue;
    EXPECT_TRUE(got[i].equal(expected[i])) << got[i] << expected[i];
    EXPECT_EQ(got[i].strides(), expected[i].strides());
    EXPECT_FALSE(got[i].requires_grad());
  }
}

struct GraphCase {
  const char* name;
  Tensors values;
  Build build;
};

void PrintTo(const GraphCase& c, std::ostream* out) { *out << c.name; }

at::Tensor Random(at::IntArrayRef sizes, int seed = 1) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(sizes, generator, at::kFloat);
}

std::vector<GraphCase> GraphCases() {
  const at::Tensor x = Random({4, 6});
  const at::Tensor w = Random({6, 6}, 2);
  const at::Tensor b = Random({6}, 3);
  const at::Tensor ids = at::tensor({2, 0, 2, 1}, at::kLong);
  return {
      {"Linear",
       {x, w, b},
       [](const Tensors& in) -> Tensors {
         return {at::gelu(at::linear(in[0], in[1], in[2]))};
       }},
      {"Broadcast",
       {x, b},
       [](const Tensors& in) -> Tensors {
         return {in[0].mul(in[1]).add(in[1])};
       }},
      {"SeveralUsesOfAnInput",
       {x, x, x},
       [](const Tensors& in) -> Tensors {
         return {in[0] * in[1] + (in[0] * in[2] + in[0].exp() * 1e-3)};
       }},
      {"SeveralUsesOfAValue",
       {x, w},
       [](const Tensors& in) -> Tensors {
         const at::Tensor y = at::mm(in[0], in[1]);
         return {(y.sin() + y.exp()) * y + y.mean()};
       }},
      {"SeveralOutputs",
       {x, w},
       [](const Tensors& in) -> Tensors {
         const at::Tensor y = at::mm(in[0], in[1]);
         return {y.relu(), y.sum(0), in[1].tanh()};
       }},
      {"TheSameOutputTwice",
       {x},
       [](const Tensors& in) -> Tensors {
         const at::Tensor y = in[0].exp();
         return {y, y};
       }},
      {"SomeOfManyResults",
       {x},
       [](const Tensors& in) -> Tensors {
         const Tensors parts = in[0].chunk(3, 1);
         return {parts[0] * parts[2]};
       }},
      {"Views",
       {x},
       [](const Tensors& in) -> Tensors {
         return {in[0].view({2, 2, 6}).transpose(1, 2).reshape({4, 6}).sin()};
       }},
      {"InPlace",
       {x},
       [](const Tensors& in) -> Tensors {
         at::Tensor y = in[0] * 2;
         y.narrow(1, 0, 3).mul_(in[0].narrow(1, 3, 3));
         return {y.relu_()};
       }},
      {"Norm",
       {x, b, b},
       [](const Tensors& in) -> Tensors {
         return {at::layer_norm(in[0], {6}, in[1], in[2])};
       }},
      {"Attention",
       {Random({2, 2, 4, 6})},
       [](const Tensors& in) -> Tensors {
         return {at::scaled_dot_product_attention(in[0], in[0].sin(), in[0], {},
                                                  0, true)};
       }},
      {"Embedding",
       {w, ids},
       [](const Tensors& in) -> Tensors {
         return {at::embedding(in[0], in[1])};
       }},
      {"OperatorOfOurOwn",
       {w, ids},
       [](const Tensors& in) -> Tensors {
         return {ShardedEmbedding(in[0], in[1], 0, 10, -1)};
       }},
      {"Loss",
       {x, at::tensor({5, 1, 0, 3}, at::kLong)},
       [](const Tensors& in) -> Tensors {
         return {at::cross_entropy_loss(in[0], in[1])};
       }},
      {"OtherType",
       {x},
       [](const Tensors& in) -> Tensors {
         return {in[0].to(at::kDouble).exp().to(at::kBFloat16)};
       }},
      {"TypesThatMeet",
       {x, w.to(at::kDouble)},
       [](const Tensors& in) -> Tensors {
         return {in[0].narrow(0, 0, 1).mul(in[1])};
       }},
      {"AnUnusedInput",
       {x, b},
       [](const Tensors& in) -> Tensors { return {in[0].cos()}; }},
      {"AnOutputThatIsAnInput",
       {x},
       [](const Tensors& in) -> Tensors {
         return {in[0], in[0].cos()};
       }},
      {"AnOutputWithoutGradient",
       {x},
       [](const Tensors& in) -> Tensors {
         return {in[0].detach(), in[0].cos()};
       }},
      {"NoRows",
       {Random({0, 6}), w},
       [](const Tensors& in) -> Tensors {
         return {at::mm(in[0], in[1]).sum(0)};
       }},
  };
}

class GraphWalkTest : public testing::TestWithParam<GraphCase> {};

TEST_P(GraphWalkTest, GivesTheEnginesGradients) {
  ExpectEngines(GetParam().values, GetParam().build);
}

INSTANTIATE_TEST_SUITE_P(Graphs, GraphWalkTest, testing::ValuesIn(GraphCases()),
                         [](const auto& info) { return info.param.name; });

// Each value is made of any two before it; any may be an output.
Tensors BuildRandom(uint32_t seed, const Tensors& inputs) {
  std::mt19937 random(seed);
  Tensors values = inputs;
  const auto any = [&] { return values[random() % values.size()]; };
  for (int i = 0; i < 25; ++i) {
    const at::Tensor a = any();
    const at::Tensor b = any();
    switch (random() % 6) {
      case 0:
        values.push_back(a + b);
        break;
      case 1:
        values.push_back(a * b.mean(0, /*keepdim=*/true));
        break;
      case 2:
        values.push_back(at::mm(a, b.t()).tanh());
        break;
      case 3:
        values.push_back(at::cat({a.narrow(0, 0, 2), b.narrow(0, 1, 2)}, 0));
        break;
      case 4:
        values.push_back(a.view({2, 8}).transpose(0, 1).reshape({4, 4}));
        break;
      default:
        values.push_back(at::softmax(a, 1) + b.select(1, 0));
    }
  }
  return {values.back(), any(), any()};
}

TEST(GraphWalk, RandomGraphsToo) {
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    ExpectEngines({Random({4, 4}, 1), Random({4, 4}, 2), Random({4, 4}, 3)},
                  [seed](const Tensors& in) { return BuildRandom(seed, in); });
  }
}

// Though what reaches x begins with one of them, and is added to.
TEST(GraphWalk, LeavesTheCallersGradientsAlone) {
  const at::Tensor x = Random({4}).requires_grad_(true);
  const at::Tensor gradient = Random({4}, 2);
  const at::Tensor before = gradient.clone();
  WalkGraph({x, x.cos()}, {gradient, at::ones({4})}, {x});
  EXPECT_TRUE(gradient.equal(before)) << gradient << before;
}

TEST(GraphWalk, LetsGoOfWhatWasSaved) {
  const at::Tensor x = Random({4}).requires_grad_(true);
  const at::Tensor saved = Random({4}, 2);
  const at::Tensor y = x * saved;
  EXPECT_GT(saved.use_count(), 1u);
  WalkGraph({y}, {at::ones({4})}, {x});
  EXPECT_EQ(saved.use_count(), 1u);
}

TEST(GraphWalk, RecordsNothing) {
  const at::AutoGradMode recording(true);
  const at::Tensor x = Random({4}).requires_grad_(true);
  const Tensors got =
      WalkGraph({x.exp()}, {at::ones({4}).requires_grad_(true)}, {x});
  EXPECT_FALSE(got[0].requires_grad());
}

TEST(GraphWalk, AGraphEndsOnce) {
  const at::Tensor x = Random({4}).requires_grad_(true);
  const at::Tensor y = x.exp();
  WalkGraph({y}, {at::ones({4})}, {x});
  EXPECT_THROW(WalkGraph({y}, {at::ones({4})}, {x}), c10::Error);
}

TEST(GraphWalk, RefusesGradientsOfAnotherShape) {
  const at::Tensor x = Random({4}).requires_grad_(true);
  EXPECT_THROW(WalkGraph({x.exp()}, {at::ones({3})}, {x}), c10::Error);
}

// Between two leaves: tanh's result, which is used twice.
TEST(GraphWalk, GivesTheGradientsOfInnerNodesToo) {
  const auto build = [](const Tensors& leaves, at::Tensor* inner) {
    *inner = (leaves[0] * leaves[1]).tanh();
    return (*inner * leaves[1] + *inner).sum();
  };
  const Tensors values{at::arange(6, at::kDouble) / 7,
                       at::arange(6, at::kDouble).cos()};
  const at::Tensor seed = at::ones({}, at::kDouble);
  at::Tensor inner;
  const Tensors leaves = Leaves(values);
  const at::Tensor output = build(leaves, &inner);
  const Tensors expected =
      Engine({output}, {seed}, {leaves[0], leaves[1], inner});
  const Tensors others = Leaves(values);
  const at::Tensor again = build(others, &inner);
  const Tensors actual =
      WalkGraph({again}, {seed}, {others[0], others[1], inner});
  ASSERT_EQ(actual.size(), 3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(actual[i].equal(expected[i])) << i;
}

TEST(GraphWalk, NothingReachesAnInnerNodeBesideTheWay) {
  const Tensors leaves = Leaves({at::ones({2}), at::ones({2})});
  const Tensors actual = WalkGraph({leaves[0].exp()}, {at::ones({2})},
                                   {leaves[0], leaves[1], leaves[1].exp()});
  EXPECT_TRUE(actual[0].defined());
  EXPECT_FALSE(actual[1].defined() || actual[2].defined());
}

TEST(GraphWalk, LeavesThatAreNoInputsGetNothing) {
  const Tensors leaves = Leaves({at::ones({2}), at::ones({2})});
  WalkGraph({leaves[0] * leaves[1]}, {at::ones({2})}, {leaves[0]});
  EXPECT_FALSE(leaves[1].grad().defined());
}

// A graph that begins with an edge holds no memory of what it got.
TEST(GraphWalk, BeginningsHoldNothing) {
  const at::AutoGradMode recording(true);
  const at::Tensor values = Random({4, 4});
  const at::Tensor seed = Random({4, 4}, 2);
  at::Tensor input = values.clone();
  const c10::weak_intrusive_ptr<c10::StorageImpl> memory(
      input.storage().getWeakStorageImpl());
  const torch::autograd::Edge begin = BeginGraph(input);
  at::Tensor output = input * 3 + input.sum(0, /*keepdim=*/true);
  const torch::autograd::Edge end = EdgeOf(output);
  input.reset();
  output.reset();
  EXPECT_TRUE(memory.expired());
  const at::Tensor leaf = values.clone().requires_grad_(true);
  const Tensors expected =
      Engine({leaf * 3 + leaf.sum(0, /*keepdim=*/true)}, {seed}, {leaf});
  const Tensors actual =
      shardplane::WalkGraph({&end, 1}, {&seed, 1}, {&begin, 1});
  EXPECT_TRUE(actual[0].equal(expected[0]));
}

}  // namespace
}  // namespace shardplane
