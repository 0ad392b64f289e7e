#include "common/collective_causes.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/compile_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// "forward all_reduce net2: sum of a rowwise linear" a collective.
std::vector<std::string> Causes(const Request& request) {
  const auto compiled = Compile(request);
  if (!compiled.ok()) return {std::string(compiled.status().message())};
  const DeviceMesh mesh = *DeviceMesh::Create(request.mesh);
  const ResolvedPlan plan =
      *ResolvePlan(request.module, mesh, ParallelizePlan{request.plan}, {});
  std::vector<std::string> texts;
  for (const CausedCollective& cause :
       CausesOfCollectives(request.module, plan, compiled->program)) {
    texts.push_back(absl::StrCat(
        cause.phase == Phase::kForward ? "forward " : "backward ",
        ToString(cause.record.kind), " ", cause.fqn, ": ", cause.why));
  }
  return texts;
}

std::vector<PlanEntry> Pairwise() {
  return {Entry("net1", Colwise()), Entry("net2", Rowwise())};
}

TEST(CausesTest, RowwiseSumsAndColwiseInputs) {
  Request request{Mlp(), Pairwise()};
  request.input_grad = true;
  EXPECT_THAT(Causes(request),
              ElementsAre("forward all_reduce net2: sum of a rowwise linear",
                          "backward all_reduce net1: gradient of the input of "
                          "net1"));
}

TEST(CausesTest, AMeshDimOfOneRankCommunicatesNothing) {
  Request request{Mlp(), Pairwise()};
  request.mesh = {{"tp", 1}};
  EXPECT_THAT(Causes(request), IsEmpty());
}

TEST(CausesTest, SequenceParallelGathersAndScatters) {
  Request request{Mlp(),
                  {Entry("net1", Colwise(Shard{0})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{0}))}};
  request.input_grad = true;
  EXPECT_THAT(
      Causes(request),
      ElementsAre("forward all_gather net1: layout asked by ColwiseParallel of "
                  "net1",
                  "forward reduce_scatter net2: sum of a rowwise linear, left "
                  "as S(0)",
                  "backward all_gather net2: gradient of the output of net2, "
                  "which forward scatters",
                  "backward reduce_scatter net1: gradient of the input of "
                  "net1, cut as that was before it was gathered"));
}

TEST(CausesTest, OutputLayouts) {
  EXPECT_THAT(Causes({Mlp(),
                      {Entry("net1", Colwise(Replicate{}, Replicate{}))},
                      {8, 10},
                      false,
                      false}),
              ElementsAre("forward all_gather net1: output layout asked by "
                          "ColwiseParallel"));
}

TEST(CausesTest, LayoutsOfPrepareModuleInput) {
  const ParallelStyle whole{PrepareModuleInput{{{Shard{0}, Replicate{}}}, {}},
                            ""};
  EXPECT_THAT(Causes({Mlp(), {Entry("", whole)}, {8, 10}, false, false}),
              ElementsAre("forward all_gather : layout asked by "
                          "PrepareModuleInput of the root module"));
}

// q, k and v of one input: one gradient for all.
GraphModule Attention() {
  return *GraphModule::Create(
      {Root(
           {Placeholder("x"), Call("y", "attn", {Ref("x")}), Output(Ref("y"))}),
       [] {
         ModuleNode node = Root(
             {Placeholder("x"), Call("q", "attn.q", {Ref("x")}),
              Call("k", "attn.k", {Ref("x")}), Call("v", "attn.v", {Ref("x")}),
              Call("qk", "aten.mul.Tensor", {Ref("q"), Ref("k")}),
              Call("qkv", "aten.mul.Tensor", {Ref("qk"), Ref("v")}),
              Call("y", "attn.o", {Ref("qkv")}), Output(Ref("y"))});
         node.fqn = "attn";
         return node;
       }(),
       Mod("attn.q", "Linear"), Mod("attn.k", "Linear"),
       Mod("attn.v", "Linear"), Mod("attn.o", "Linear")},
      {Param("attn.q.weight", {12, 10}), Param("attn.k.weight", {12, 10}),
       Param("attn.v.weight", {12, 10}), Param("attn.o.weight", {10, 12})});
}

TEST(CausesTest, WhatSeveralModulesShareIsTheirParents) {
  Request request{Attention(),
                  {Entry("attn.q", Colwise()), Entry("attn.k", Colwise()),
                   Entry("attn.v", Colwise()), Entry("attn.o", Rowwise())}};
  request.input_grad = true;
  EXPECT_THAT(
      Causes(request),
      ElementsAre("forward all_reduce attn.o: sum of a rowwise linear",
                  "backward all_reduce attn: gradient of the input of q, k, "
                  "v"));
}

TEST(CausesTest, AnOpThatNeedsADimWhole) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("h", "up", {Ref("x")}),
             Call("s", "aten.softmax.int", {Ref("h"), {int64_t{-1}}}),
             Output(Ref("s"))}),
       Mod("up", "Linear")},
      {Param("up.weight", {12, 10})});
  EXPECT_THAT(Causes({module, {Entry("up", Colwise())}, {8, 10}, false, false}),
              ElementsAre("forward all_gather : dim 1 made whole for softmax "
                          "in the root module"));
}

TEST(CausesTest, WhatRunsBesideOthersHasTheSameCauses) {
  Request request{Mlp(), Pairwise()};
  request.input_grad = true;
  const std::vector<std::string> alone = Causes(request);
  request.link_costs = {.us_per_mib = 1000};
  ASSERT_THAT(Steps(Compile(request)), HasSubstr("start"));
  EXPECT_EQ(Causes(request), alone);
}

// Of what is gathered in pieces, too: a product's are its own.
TEST(CausesTest, PiecesHaveTheCausesOfTheWhole) {
  Request request{Mlp(),
                  {Entry("net1", Colwise(Shard{1})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{1}))}};
  request.input = {2, 8, 10};
  request.input_grad = true;
  std::vector<std::string> twice;
  for (const std::string& cause : Causes(request)) {
    twice.insert(twice.end(), {cause, cause});
  }
  request.link_costs = {.us_per_mib = 1000, .beside = 1};
  EXPECT_EQ(Causes(request), twice);
}

TEST(CausesTest, BucketsNameTheirParameters) {
  ModuleNode norm = Mod("norm", "LayerNorm");
  norm.attributes["normalized_shape"] = {ArgumentList{{int64_t{10}}}};
  Request request{*GraphModule::Create(
                      {Mod("", "Sequential"), norm},
                      {Param("norm.weight", {10}), Param("norm.bias", {10})}),
                  {Entry("norm", {SequenceParallel{0}, ""})}};
  EXPECT_THAT(Causes(request),
              ElementsAre("backward all_reduce norm: bucket of the gradients "
                          "of 2 parameters, of which each rank has a part: "
                          "norm.bias, norm.weight"));
}

TEST(CausesTest, ASingleGradientHasNoBucket) {
  ModuleNode norm = Mod("norm", "LayerNorm");
  norm.attributes["normalized_shape"] = {ArgumentList{{int64_t{10}}}};
  Request request{*GraphModule::Create({Mod("", "Sequential"), norm},
                                       {Param("norm.weight", {10})}),
                  {Entry("norm", {SequenceParallel{0}, ""})}};
  EXPECT_THAT(Causes(request),
              ElementsAre("backward all_reduce norm: gradient of norm.weight: "
                          "each rank has a part of its sum"));
}

TEST(CausesTest, TiedWeightsThatAreCutInTwoWays) {
  const std::vector<std::string> causes =
      Causes({TiedLinears(),
              {Entry("in", Colwise()), Entry("out", Rowwise(Replicate{}))},
              {8, 10},
              false,
              false});
  ASSERT_FALSE(causes.empty());
  EXPECT_EQ(causes[0],
            "forward all_to_all out: in.weight is stored as S(0) and used as "
            "S(1)");
}

TEST(CausesTest, AreAsManyAsTheProgramsCollectives) {
  Request request{Attention(),
                  {Entry("attn.q", Colwise(Shard{0})),
                   Entry("attn.k", Colwise()), Entry("attn.o", Rowwise())}};
  request.input_grad = true;
  request.mesh = {{"dp", 2}, {"tp", 2}};
  const auto compiled = Compile(request);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  size_t count = 0;
  for (const Phase phase : {Phase::kForward, Phase::kBackward}) {
    count += Collectives(compiled->program, phase, {0, 0}).size();
  }
  EXPECT_EQ(Causes(request).size(), count);
}

}  // namespace
}  // namespace shardplane
