#include "common/compile.h"

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/compile_fixture.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

TEST(CompileTest, BothColwiseGathersOutputsAndNoWeights) {
  Request request{Mlp(), {Entry("net*", Colwise(Replicate{}, Replicate{}))}};
  const std::string steps = Steps(Compile(request));
  EXPECT_EQ(Count(steps, "= all_gather"), 2) << steps;
  EXPECT_EQ(Count(steps, "= all_reduce"), 1) << steps;  // into relu, backward
  EXPECT_EQ(Count(steps, "all_gather[tp, from 0]"), 0) << steps;
}

TEST(CompileTest, FrozenParametersGetNoGradientAndNoCollective) {
  const GraphModule module = *GraphModule::Create(
      {Mod("", "Sequential"), Mod("net1", "Linear"), Mod("net2", "Linear")},
      {Param("net1.weight", {16, 10}, false), Param("net1.bias", {16}, false),
       Param("net2.weight", {10, 16}), Param("net2.bias", {10})});
  const auto compiled =
      Compile({module, {Entry("net1", Colwise()), Entry("net2", Rowwise())}});
  EXPECT_EQ(Specs(compiled),
            "net1.weight [S(0)] none; net1.bias [S(0)] none; "
            "net2.weight [S(1)] [S(1)]; net2.bias [R] [R]");
  EXPECT_EQ(Count(Steps(compiled), "all_reduce"), 1);
}

// Three projections of one value share one vary: one all-reduce backward.
TEST(CompileTest, ProjectionsShareTheReductionOfTheirInputsGradient) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("a", "q", {Ref("x")}),
             Call("b", "k", {Ref("x")}), Call("c", "v", {Ref("x")}),
             Call("ab", "aten.add.Tensor", {Ref("a"), Ref("b")}),
             Call("abc", "aten.mul.Tensor", {Ref("ab"), Ref("c")}),
             Output(Ref("abc"))}),
       Mod("q", "Linear"), Mod("k", "Linear"), Mod("v", "Linear")},
      {Param("q.weight", {8, 10}), Param("k.weight", {8, 10}),
       Param("v.weight", {8, 10})});
  Request request{module, {Entry("?", Colwise())}};
  request.input_grad = true;
  const std::string steps = Steps(Compile(request));
  EXPECT_EQ(Count(steps, "all_reduce"), 1) << steps;
  EXPECT_EQ(Count(steps, "alias"), 1) << steps;
}

// However many values there are, so wherever their storage grows, what was
// gathered gets its gradient back (the sanitizers watch).
TEST(CompileTest, GradientOfAGatheredInputInProgramsOfAnySize) {
  for (int length = 1; length <= 40; ++length) {
    std::vector<Node> nodes = {Placeholder("x")};
    std::string last = "x";
    for (int i = 0; i < length; ++i) {
      const std::string name = absl::StrCat("relu", i);
      nodes.push_back(Call(name, "aten.relu.default", {Ref(last)}));
      last = name;
    }
    nodes.push_back(Call("y", "up", {Ref(last)}));
    nodes.push_back(Output(Ref("y")));
    Request request{*GraphModule::Create({Root(nodes), Mod("up", "Linear")},
                                         {Param("up.weight", {8, 10})}),
                    {Entry("", {PrepareModuleInput{{{Shard{0}, Shard{0}}}}}),
                     Entry("up", Colwise(Shard{0}))}};
    request.input_grad = true;
    const auto compiled = Compile(request);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    EXPECT_EQ(Count(Steps(compiled), "reduce_scatter"), 1) << length;
    EXPECT_GE(compiled->program.inputs[0].gradient, 0) << length;
  }
}

// A Sequential of `count` MLPs, net1: 10 -> 16 and net2: 16 -> 10.
GraphModule Stacked(int count) {
  std::vector<ModuleNode> modules = {Mod("", "Sequential")};
  std::vector<Parameter> parameters;
  for (int i = 0; i < count; ++i) {
    const std::string mlp = absl::StrCat(i);
    modules.push_back(Mod(mlp, "Sequential"));
    for (const auto& [name, in, out] :
         {std::tuple{"net1", 10, 16}, std::tuple{"net2", 16, 10}}) {
      const std::string fqn = JoinFqn(mlp, name);
      modules.push_back(Mod(fqn, "Linear"));
      parameters.push_back(Param(JoinFqn(fqn, "weight"), {out, in}));
      parameters.push_back(Param(JoinFqn(fqn, "bias"), {out}));
    }
  }
  return *GraphModule::Create(std::move(modules), std::move(parameters));
}

// However often a block is there, its calls are decided once.
TEST(CompileTest, RepeatedBlocksAreCompiledOnce) {
  const auto compile = [](int count) {
    return Compile({Stacked(count),
                    {Entry("*.net1", Colwise()), Entry("*.net2", Rowwise())}});
  };
  const auto few = compile(3);
  const auto many = compile(40);
  ASSERT_TRUE(few.ok()) << few.status();
  ASSERT_TRUE(many.ok()) << many.status();
  // All-reduces: a block's sum, and the gradient of what it takes but x.
  EXPECT_EQ(Count(Steps(few), "= all_reduce"), 3 + 2);
  EXPECT_EQ(Count(Steps(many), "= all_reduce"), 40 + 39);
  // net1, net2 and the loss; net1 of x, which asks for no gradient.
  EXPECT_EQ(few->distinct_calls, 4);
  EXPECT_EQ(many->distinct_calls, 4);
}

// What was gathered along a dim is scattered along that one, and so its
// gradient lies as it does.
TEST(CompileTest, GradientOfAGatheredInputIsScatteredWhereItWasCut) {
  Request request{Mlp(),
                  {Entry("net1", Colwise(Shard{1})), Entry("net2", Rowwise())}};
  request.input = {2, 8, 10};
  request.input_grad = true;
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_EQ(Count(steps, "= all_gather[tp, from 1]"), 1) << steps;
  EXPECT_EQ(Count(steps, "= reduce_scatter[tp, to 1, sum]"), 1) << steps;
  const InputBinding& x = compiled->program.inputs[0];
  EXPECT_EQ(ToString(compiled->program.values[x.value].spec), "[S(1)]");
  EXPECT_EQ(ToString(compiled->program.values[x.gradient].spec), "[S(1)]");
}

// view(b, s, heads, d) after a colwise projection keeps the cut, on the heads.
TEST(CompileTest, ViewIntoHeadsKeepsTheCut) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("p", "proj", {Ref("x")}),
             Call("h", "aten.view.default",
                  {Ref("p"),
                   {ArgumentList{{int64_t{8}}, {int64_t{4}}, {int64_t{-1}}}}}),
             Call("t", "aten.transpose.int",
                  {Ref("h"), {int64_t{0}}, {int64_t{1}}}),
             Output(Ref("t"))}),
       Mod("proj", "Linear")},
      {Param("proj.weight", {12, 10})});
  Request request{module, {Entry("proj", Colwise())}};
  request.loss = false;
  const auto compiled = Compile(request);
  EXPECT_EQ(Steps(compiled), R"(forward
  segment 0
    %2 = aten.linear.default(%0, %1)  # proj
    %3 = aten.reshape.default(%2, [8, 4/tp, 3])
    %4 = aten.transpose.int(%3, 0, 1)
)");
  EXPECT_EQ(ToString(compiled->program.values[4].spec), "[S(0)]");
}

// 3 heads of 4 on 4 ranks: chunks of 12 are not heads, so the view gathers.
TEST(CompileTest, ViewGathersWhereCutsMissTheHeads) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("p", "proj", {Ref("x")}),
             Call("h", "aten.view.default",
                  {Ref("p"),
                   {ArgumentList{{int64_t{8}}, {int64_t{6}}, {int64_t{2}}}}}),
             Output(Ref("h"))}),
       Mod("proj", "Linear")},
      {Param("proj.weight", {12, 10})});
  Request request{module, {Entry("proj", Colwise())}};
  request.loss = false;
  EXPECT_EQ(Count(Steps(Compile(request)), "all_gather[tp, from 1]"), 1);
}

TEST(CompileTest, MeanOfAnUnevenCutIsASumOverTheGlobalCount) {
  Request request{Mlp(), {Entry("net2", Colwise())}};
  const DeviceMesh mesh = *DeviceMesh::Create(request.mesh);
  const auto plan =
      ResolvePlan(request.module, mesh, ParallelizePlan{request.plan}, {});
  Signature signature;
  signature.inputs = {{{DType::kFloat64, {8, 10}}, false, "x"}};
  signature.loss = LossReduction::kMean;
  const auto compiled = Compile(request.module, mesh, *plan, signature, {});
  const std::string steps = Steps(compiled);
  EXPECT_THAT(steps, HasSubstr("aten.sum.default"));
  EXPECT_THAT(steps, HasSubstr("aten.div.Scalar"));
  EXPECT_THAT(steps, HasSubstr(", 80)"));
  EXPECT_EQ(ToString(compiled->program.values[compiled->program.loss].spec),
            "[P(sum)]");
}

// Batch on dp, the plan on tp: gradients are reduced along dp once each.
TEST(CompileTest, TwoMeshDims) {
  Request request{
      Mlp(),
      {{"",
        std::vector<ParallelStyle>{
            {PrepareModuleInput{{{Shard{0}, Shard{0}}}, {}}, "dp"}}},
       Entry("net1", Colwise()),
       Entry("net2", Rowwise())}};
  request.mesh = {{"dp", 2}, {"tp", 2}};
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_EQ(ToString(compiled->program.values[0].spec), "[S(0), R]") << steps;
  // All four in one bucket.
  EXPECT_EQ(Count(steps, "all_reduce[dp, sum]"), 1) << steps;
  EXPECT_EQ(Count(steps, "all_reduce[tp, sum]"), 1) << steps;
  EXPECT_EQ(Specs(compiled),
            "net1.weight [R, S(0)] [R, S(0)]; net1.bias [R, S(0)] [R, S(0)]; "
            "net2.weight [R, S(1)] [R, S(1)]; net2.bias [R, R] [R, R]");
}

TEST(CompileTest, TiedWeightIsOneParameterWithOneGradient) {
  const GraphModule module = TiedLinears();
  const auto compiled =
      Compile({module, {Entry("in", Colwise()), Entry("out", Colwise())}});
  EXPECT_EQ(Specs(compiled), "in.weight [S(0)] [S(0)]") << Steps(compiled);
}

// Stored as the first style says, moved to where the other name is used.
TEST(CompileTest, TiedWeightCutInTwoWaysIsRedistributed) {
  const GraphModule module = TiedLinears();
  const auto compiled =
      Compile({module, {Entry("out", Rowwise()), Entry("in", Colwise())}});
  EXPECT_EQ(Specs(compiled), "in.weight [S(1)] [S(1)]");
  const std::string steps = Steps(compiled);
  // The weight forward, its gradient backward, and out's sum.
  EXPECT_EQ(Count(steps, "all_to_all"), 2) << steps;
  // Both uses count: %14 is the gradient by `in`, %15 by `out`.
  EXPECT_THAT(steps, HasSubstr("%16 = all_to_all[tp, from 0, to 1] %14\n"
                               "  %17 = accumulate %15, %16\n"));
}

TEST(CompileTest, RootInputIsClaimedByItsName) {
  PrepareModuleInput prepare;
  prepare.kwargs["x"] = {Shard{0}, Replicate{}};
  const GraphModule module = *GraphModule::Create(
      {Root(
           {Placeholder("x"), Call("y", "proj", {Ref("x")}), Output(Ref("y"))}),
       Mod("proj", "Linear")},
      {Param("proj.weight", {12, 10})});
  const Request request{module,
                        {{"", std::vector<ParallelStyle>{{prepare, ""}}},
                         Entry("proj", Colwise())}};
  const auto compiled = Compile(request);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  EXPECT_EQ(ToString(compiled->program.values[0].spec), "[S(0)]");
  EXPECT_EQ(Count(Steps(compiled), "= all_gather[tp, from 0]"), 1);
}

TEST(CompileTest, CollectivesOfEachPhase) {
  Request request{Mlp(10, 17),
                  {Entry("net1", Colwise(Shard{0})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{0}))}};
  request.input = {6, 10};
  request.input_grad = true;
  const auto compiled = Compile(request);
  const std::vector<int> last = {3};
  const auto forward = Collectives(compiled->program, Phase::kForward, last);
  // 6 rows on 4 ranks: chunks of 2, padded to 8 rows of 10.
  ASSERT_EQ(forward.size(), 2);
  EXPECT_EQ(forward[0].send_elements, 20);
  EXPECT_EQ(forward[0].recv_elements, 80);
  EXPECT_EQ(forward[1].send_elements, 80);
  EXPECT_EQ(forward[1].recv_elements, 20);
  EXPECT_EQ(CountedBytes(forward[0]), 640);
  const auto backward = Collectives(compiled->program, Phase::kBackward, last);
  EXPECT_EQ(backward.size(), 2);
  const std::vector<CollectiveRecord> swapped = {forward[1], forward[0]};
  EXPECT_NE(HashCollectives(forward), HashCollectives(swapped));
  std::vector<CollectiveRecord> longer = forward;
  longer.push_back(backward[0]);
  EXPECT_NE(HashCollectives(forward), HashCollectives(longer));
}

struct Refusal {
  const char* name;
  Node node;
  absl::StatusCode code;
  const char* message;
};

class CompileRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(CompileRefuses, NamingOpAndModule) {
  GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("y", "inner", {Ref("x")}),
             Output(Ref("y"))}),
       [] {
         ModuleNode inner = Mod("inner", "Module");
         inner.graph =
             Graph{{Placeholder("x"), GetParam().node, Output(Ref("n"))}};
         return inner;
       }()},
      {});
  Request request{module, {}};
  request.loss = false;
  const auto compiled = Compile(request);
  EXPECT_EQ(compiled.status().code(), GetParam().code) << compiled.status();
  EXPECT_THAT(std::string(compiled.status().message()),
              testing::AllOf(HasSubstr(GetParam().message),
                             HasSubstr("inner, node n")));
  EXPECT_EQ(GetErrorInfo(compiled.status())->metadata.at("fqn"), "inner");
  EXPECT_EQ(GetErrorInfo(compiled.status())->metadata.at("op"),
            GetParam().node.target);
}

INSTANTIATE_TEST_SUITE_P(
    Ops, CompileRefuses,
    testing::Values(
        Refusal{"unknown", Call("n", "aten.frobnicate.default", {Ref("x")}),
                absl::StatusCode::kUnimplemented,
                "got: aten.frobnicate.default"},
        Refusal{"in_place", Call("n", "aten.relu_.default", {Ref("x")}),
                absl::StatusCode::kUnimplemented, "got: aten.relu_.default"},
        Refusal{"random", Call("n", "aten.rand_like.default", {Ref("x")}),
                absl::StatusCode::kUnimplemented,
                "got: aten.rand_like.default"},
        Refusal{"view_of_other_size",
                Call("n", "aten.view.default",
                     {Ref("x"), {ArgumentList{{int64_t{7}}}}}),
                absl::StatusCode::kInvalidArgument, "got: [7]"},
        Refusal{"matmul_that_does_not_fit",
                Call("n", "aten.mm.default", {Ref("x"), Ref("x")}),
                absl::StatusCode::kInvalidArgument, "for dim k"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(CompileTest, OpWithoutARowRunsReplicatedAndSaysSo) {
  Node call = Call("n", "aten.renorm.default", {Ref("p")});
  call.results = {{DType::kFloat64, {8, 12}}};
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("p", "proj", {Ref("x")}), call,
             Output(Ref("n"))}),
       Mod("proj", "Linear")},
      {Param("proj.weight", {12, 10})});
  Request request{module, {Entry("proj", Colwise())}};
  request.loss = false;
  auto compiled = Compile(request);
  ASSERT_TRUE(compiled.ok());
  ASSERT_EQ(compiled->diagnostics.size(), 1);
  EXPECT_EQ(compiled->diagnostics[0].reason, "REPLICATED_OP");
  EXPECT_THAT(compiled->diagnostics[0].message, HasSubstr("768 bytes"));
  request.strict = true;
  compiled = Compile(request);
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(compiled.status().message()),
              HasSubstr("aten.renorm.default"));
}

TEST(CompileTest, ClaimThatDiffersIsANoteAndNoWrongResult) {
  Request request{
      Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise(Replicate{}))}};
  const auto compiled = Compile(request);
  ASSERT_TRUE(compiled.ok());
  ASSERT_EQ(compiled->diagnostics.size(), 1);
  EXPECT_EQ(compiled->diagnostics[0].reason, "CLAIM_DIFFERS");
  EXPECT_EQ(compiled->diagnostics[0].severity, Severity::kNote);
  EXPECT_EQ(compiled->diagnostics[0].fqn, "net2");
  EXPECT_EQ(Count(Steps(compiled), "all_reduce"), 1);
}

TEST(CompileTest, LossThatIsNoScalarIsRefused) {
  Request request{Mlp(), {}};
  const DeviceMesh mesh = *DeviceMesh::Create(request.mesh);
  const auto plan = ResolvePlan(request.module, mesh, ParallelizePlan{}, {});
  Signature signature;
  signature.inputs = {{{DType::kFloat64, {8, 10}}, false, "x"}};
  signature.loss = Graph{{Placeholder("y"), Output(Ref("y"))}};
  const auto compiled = Compile(request.module, mesh, *plan, signature, {});
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(compiled.status().message()),
              HasSubstr("got: f64[8, 10]"));
}

TEST(CompileTest, InputOfAnotherShapeIsRefused) {
  Request request{Mlp(), {}};
  request.input = {8, 11};
  const auto compiled = Compile(request);
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(compiled.status().message()),
              testing::AllOf(HasSubstr("net1"), HasSubstr("11")));
}

TEST(CompileTest, LayoutBeyondTheDimsIsRefused) {
  Request request{Mlp(), {Entry("net1", Colwise(Shard{2}))}};
  const auto compiled = Compile(request);
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(compiled.status().message()),
              testing::AllOf(HasSubstr("net1"), HasSubstr("got: S(2)")));
}

}  // namespace
}  // namespace shardplane
