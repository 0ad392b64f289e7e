// What the styles of pairing.h and LossParallel make of a program.
#include <string>
#include <vector>

#include "common/compile_fixture.h"
#include "common/pairing.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

Node GetAttr(const std::string& name, const std::string& target) {
  Node node;
  node.name = name;
  node.op = NodeOp::kGetAttr;
  node.target = target;
  return node;
}

// Calls an attention with one value three times, or with three of its own.
GraphModule AroundAttention(bool by_name) {
  Node call = Call("a", "attn", {Ref("x"), Ref("x"), Ref("x")});
  if (by_name) {
    call.args.clear();
    call.kwargs = {{"query", Ref("x")}, {"key", Ref("x")}, {"value", Ref("x")}};
  }
  ModuleNode attn = Mod("attn", "MultiheadAttention");
  attn.graph = Graph{
      {Placeholder("query"), Placeholder("key"), Placeholder("value"),
       GetAttr("wq", "attn.q_proj_weight"), GetAttr("wk", "attn.k_proj_weight"),
       GetAttr("wv", "attn.v_proj_weight"),
       GetAttr("wo", "attn.out_proj.weight"),
       Call("q", "aten.linear.default", {Ref("query"), Ref("wq")}),
       Call("k", "aten.linear.default", {Ref("key"), Ref("wk")}),
       Call("v", "aten.linear.default", {Ref("value"), Ref("wv")}),
       Call("qk", "aten.mul.Tensor", {Ref("q"), Ref("k")}),
       Call("y", "aten.mul.Tensor", {Ref("qk"), Ref("v")}),
       Call("o", "aten.linear.default", {Ref("y"), Ref("wo")}),
       Output({ArgumentList{Ref("o"), Argument{}}})}};
  return GraphModule::Create(
             {Root({Placeholder("x"), call,
                    Call("g", "getitem", {Ref("a"), {int64_t{0}}}),
                    Output(Ref("g"))}),
              attn, Mod("attn.out_proj", "Linear")},
             {Param("attn.q_proj_weight", {10, 10}),
              Param("attn.k_proj_weight", {10, 10}),
              Param("attn.v_proj_weight", {10, 10}),
              Param("attn.out_proj.weight", {10, 10})})
      .value();
}

// J4: what is gathered once is query, key and value, and the output is the
// first of two.
TEST(PairedPrograms, LayoutsOfAnAttention) {
  for (const bool by_name : {false, true}) {
    Request request{AroundAttention(by_name),
                    {Entry("", {PairwiseSequenceParallel{}, ""})}};
    request.input_grad = true;
    const std::string steps = Steps(Compile(request));
    EXPECT_EQ(Count(steps, " = all_gather"), 2) << steps;
    EXPECT_EQ(Count(steps, " = reduce_scatter"), 2) << steps;
    EXPECT_EQ(Count(steps, " = all_reduce"), 0) << steps;
  }
}

TEST(LossParallel, CutsTheFirstOutputAlone) {
  Request request{
      GraphModule::Create({Root({Placeholder("x"), Call("a", "lin", {Ref("x")}),
                                 Output({ArgumentList{Ref("a"), Ref("x")}})}),
                           Mod("lin", "Linear")},
                          {Param("lin.weight", {12, 10})})
          .value(),
      {Entry("", {LossParallel{}, ""})}};
  request.loss = false;
  const auto compiled = Compile(request);
  ASSERT_THAT(compiled, IsOk());
  std::vector<std::string> specs;
  for (const ValueId id : compiled->program.outputs) {
    specs.push_back(ToString(compiled->program.values[id].spec));
  }
  EXPECT_THAT(specs, ElementsAre("[S(1)]", "[R]"));
}

TEST(PairedPrograms, RunsAsTheStylesWrittenOut) {
  Request pairs{Mlp(), {Entry("", {PairwiseParallel{Shard{1}, Shard{0}}, ""})}};
  Request written{Mlp(),
                  {Entry("net1", Colwise(Shard{1})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{0}))}};
  EXPECT_EQ(Steps(Compile(pairs)), Steps(Compile(written)));
}

}  // namespace
}  // namespace shardplane
