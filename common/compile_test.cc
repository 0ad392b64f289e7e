#include "common/compile.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

ModuleNode Mod(const std::string& fqn, const std::string& type) {
  ModuleNode node;
  node.fqn = fqn;
  node.type = "torch.nn." + type;
  return node;
}

Parameter Param(const std::string& fqn, const Shape& shape,
                bool requires_grad = true) {
  Parameter parameter;
  parameter.fqn = fqn;
  parameter.type = {DType::kFloat64, shape};
  parameter.requires_grad = requires_grad;
  return parameter;
}

Argument Ref(const std::string& name) { return {NodeRef{name}}; }

Node Placeholder(const std::string& name) {
  Node node;
  node.name = name;
  return node;
}
Node Call(const std::string& name, const std::string& target,
          std::vector<Argument> args) {
  Node node;
  node.name = name;
  node.op = target.rfind("aten.", 0) == 0 || target == "getitem"
                ? NodeOp::kCallFunction
                : NodeOp::kCallModule;
  node.target = target;
  node.args = std::move(args);
  return node;
}
Node Output(Argument value) {
  Node node;
  node.name = "output";
  node.op = NodeOp::kOutput;
  node.args = {std::move(value)};
  return node;
}

ModuleNode Root(std::vector<Node> nodes) {
  ModuleNode root = Mod("", "Module");
  root.type = "Model";
  root.graph = Graph{std::move(nodes)};
  return root;
}

// PyTorch's MLPModule: in -> hidden -> in.
GraphModule Mlp(int64_t in = 10, int64_t hidden = 16) {
  return *GraphModule::Create(
      {Mod("", "Sequential"), Mod("net1", "Linear"), Mod("relu", "ReLU"),
       Mod("net2", "Linear")},
      {Param("net1.weight", {hidden, in}), Param("net1.bias", {hidden}),
       Param("net2.weight", {in, hidden}), Param("net2.bias", {in})});
}

PlanEntry Entry(const std::string& pattern, ParallelStyle style) {
  return {pattern, std::vector<ParallelStyle>{std::move(style)}};
}
ParallelStyle Colwise(Placement in = Replicate{}, Placement out = Shard{-1}) {
  return {ColwiseParallel{in, out}, ""};
}
ParallelStyle Rowwise(Placement in = Shard{-1}, Placement out = Replicate{}) {
  return {RowwiseParallel{in, out}, ""};
}

struct Request {
  GraphModule module;
  std::vector<PlanEntry> plan;
  Shape input = {8, 10};
  bool input_grad = false;
  bool loss = true;
  std::vector<MeshDim> mesh = {{"tp", 4}};
  bool strict = false;
};

absl::StatusOr<CompiledProgram> Compile(const Request& s) {
  const DeviceMesh mesh = *DeviceMesh::Create(s.mesh);
  SP_ASSIGN_OR_RETURN(const ResolvedPlan plan,
                      ResolvePlan(s.module, mesh, ParallelizePlan{s.plan}, {}));
  Signature signature;
  signature.inputs = {{{DType::kFloat64, s.input}, s.input_grad, "x"}};
  if (s.loss) signature.loss = LossReduction::kSum;
  return Compile(s.module, mesh, plan, signature, {s.strict});
}

// The instructions alone, without what frees values.
std::string Steps(const absl::StatusOr<CompiledProgram>& compiled) {
  if (!compiled.ok()) return std::string(compiled.status().message());
  const absl::Status valid = Validate(compiled->program);
  if (!valid.ok()) return std::string(valid.message());
  std::string out;
  bool on = false;
  for (absl::string_view line :
       absl::StrSplit(ToString(compiled->program), '\n')) {
    if (line == "forward") on = true;
    if (line == "values") break;
    if (on && line.find("  free ") == absl::string_view::npos) {
      absl::StrAppend(&out, line, "\n");
    }
  }
  return out;
}

std::string Specs(const absl::StatusOr<CompiledProgram>& compiled) {
  std::vector<std::string> specs;
  for (const ParameterBinding& p : compiled->program.parameters) {
    specs.push_back(absl::StrCat(
        p.fqn, " ", ToString(compiled->program.values[p.value].spec), " ",
        p.gradient < 0 ? "none"
                       : ToString(compiled->program.values[p.gradient].spec)));
  }
  return absl::StrJoin(specs, "; ");
}

int Count(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos;
       at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

TEST(CompileGolden, ColwiseThenRowwise) {
  const auto compiled =
      Compile({Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}});
  EXPECT_EQ(Steps(compiled), R"(forward
  segment 0 recording %1, %2, %5
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
  %9 = all_reduce[tp, sum] %7
  segment 1 recording %9, %6
    %10 = aten.add.Tensor(%9, %6)
    %11 = aten.sum.default(%10)  # loss
backward
  %12 = ones
  %13, %14 = backward of 1 (%12)
  %15, %16, %17 = backward of 0 (%13)
)");
  EXPECT_EQ(Specs(compiled),
            "net1.weight [S(0)] [S(0)]; net1.bias [S(0)] [S(0)]; "
            "net2.weight [S(1)] [S(1)]; net2.bias [R] [R]");
}

TEST(CompileGolden, InputGradientIsReducedOnce) {
  Request request{Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  request.input_grad = true;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %3 = alias[tp] %0
  segment 0 recording %3, %1, %2, %6
    %4 = aten.linear.default(%3, %1, %2)  # net1
    %5 = aten.relu.default(%4)  # relu
    %8 = aten.linear.default(%5, %6)  # net2
  %10 = all_reduce[tp, sum] %8
  segment 1 recording %10, %7
    %11 = aten.add.Tensor(%10, %7)
    %12 = aten.sum.default(%11)  # loss
backward
  %13 = ones
  %14, %15 = backward of 1 (%13)
  %16, %17, %18, %19 = backward of 0 (%14)
  %20 = all_reduce[tp, sum] %16
)");
}

// The gather of the output's gradient serves the reduce-scatter's backward and
// the bias: no collective for the bias.
TEST(CompileGolden, SequenceParallelMlp) {
  Request request{Mlp(),
                  {Entry("net1", Colwise(Shard{0})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{0}))}};
  request.input_grad = true;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %1 = all_gather[tp, from 0] %0
  %4 = alias[tp] %1
  segment 0 recording %4, %2, %3, %7
    %5 = aten.linear.default(%4, %2, %3)  # net1
    %6 = aten.relu.default(%5)  # relu
    %9 = aten.linear.default(%6, %7)  # net2
  %11 = reduce_scatter[tp, to 0, sum] %9
  segment 1
    %12 = aten.add.Tensor(%11, %8)
  segment 2 recording %12
    %13 = aten.sum.default(%12)  # loss
backward
  %14 = ones
  %15 = backward of 2 (%14)
  %16 = all_gather[tp, from 0] %15
  segment 3
    %17 = aten.sum_to_size.default(%16, [10])
  %18, %19, %20, %21 = backward of 0 (%16)
  %22 = reduce_scatter[tp, to 0, sum] %18
)");
}

TEST(CompileGolden, RowwiseScatteredAlongTheBias) {
  Request request{
      Mlp(),
      {Entry("net1", Colwise()), Entry("net2", Rowwise(Shard{-1}, Shard{-1}))}};
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  segment 0 recording %1, %2, %5
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
  %9 = reduce_scatter[tp, to 1, sum] %7
  %10 = slice[tp, to 0] %6
  segment 1
    %11 = aten.add.Tensor(%9, %10)
  segment 2 recording %11
    %12 = aten.sum.default(%11)  # loss
backward
  %13 = ones
  %14 = backward of 2 (%13)
  %15 = all_gather[tp, from 1] %14
  segment 3
    %16 = aten.sum_to_size.default(%15, [10])
  %17, %18, %19 = backward of 0 (%15)
)");
}

// Left partial: the bias goes in on one rank alone.
TEST(CompileGolden, RowwiseLeftPartial) {
  Request request{
      Mlp(),
      {Entry("net1", Colwise()), Entry("net2", Rowwise(Shard{-1}, Partial{}))}};
  request.loss = false;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %9 = mask[tp] %6
  segment 0
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
    %10 = aten.add.Tensor(%7, %9)
)");
}

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
  EXPECT_EQ(Count(steps, "all_reduce[dp, sum]"), 4) << steps;
  EXPECT_EQ(Count(steps, "all_reduce[tp, sum]"), 1) << steps;
  EXPECT_EQ(Specs(compiled),
            "net1.weight [R, S(0)] [R, S(0)]; net1.bias [R, S(0)] [R, S(0)]; "
            "net2.weight [R, S(1)] [R, S(1)]; net2.bias [R, R] [R, R]");
}

TEST(CompileTest, TiedWeightIsOneParameterWithOneGradient) {
  Parameter alias = Param("out.weight", {12, 10});
  alias.alias_of = "in.weight";
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("a", "in", {Ref("x")}),
             Call("b", "out", {Ref("x")}),
             Call("ab", "aten.add.Tensor", {Ref("a"), Ref("b")}),
             Output(Ref("ab"))}),
       Mod("in", "Linear"), Mod("out", "Linear")},
      {Param("in.weight", {12, 10}), alias});
  const auto compiled =
      Compile({module, {Entry("in", Colwise()), Entry("out", Colwise())}});
  EXPECT_EQ(Specs(compiled), "in.weight [S(0)] [S(0)]") << Steps(compiled);
}

// Stored as the first style says, moved to where the other name is used.
TEST(CompileTest, TiedWeightCutInTwoWaysIsRedistributed) {
  Parameter alias = Param("out.weight", {12, 10});
  alias.alias_of = "in.weight";
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), Call("a", "in", {Ref("x")}),
             Call("b", "out", {Ref("x")}),
             Call("ab", "aten.add.Tensor", {Ref("a"), Ref("b")}),
             Output(Ref("ab"))}),
       Mod("in", "Linear"), Mod("out", "Linear")},
      {Param("in.weight", {12, 10}), alias});
  const auto compiled =
      Compile({module, {Entry("out", Rowwise()), Entry("in", Colwise())}});
  EXPECT_EQ(Specs(compiled), "in.weight [S(1)] [S(1)]");
  const std::string steps = Steps(compiled);
  // The weight forward, its gradient backward, and out's sum.
  EXPECT_EQ(Count(steps, "all_to_all"), 2) << steps;
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
        Refusal{"dropout",
                Call("n", "aten.dropout.default", {Ref("x"), {0.5}, {true}}),
                absl::StatusCode::kUnimplemented, "train mode"},
        Refusal{"view_of_other_size",
                Call("n", "aten.view.default",
                     {Ref("x"), {ArgumentList{{int64_t{7}}}}}),
                absl::StatusCode::kInvalidArgument, "got: [7]"},
        Refusal{"matmul_that_does_not_fit",
                Call("n", "aten.mm.default", {Ref("x"), Ref("x")}),
                absl::StatusCode::kInvalidArgument, "for dim k"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(CompileTest, OpWithoutARowRunsReplicatedAndSaysSo) {
  Node call = Call("n", "aten.tril.default", {Ref("p")});
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
              HasSubstr("aten.tril.default"));
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
