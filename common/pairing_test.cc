#include "common/pairing.h"

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/compile_fixture.h"
#include "common/example_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

// The numbers are those of the behaviours of PyTorch's old API.
namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

const ParallelStyle kPairs = {PairwiseParallel{}, ""};
const ParallelStyle kLayouts = {PairwiseParallel{Shard{1}, Shard{0}}, ""};
const ParallelStyle kSequence = {PairwiseSequenceParallel{}, ""};

absl::StatusOr<ResolvedPlan> Resolve(const GraphModule& module,
                                     std::vector<PlanEntry> entries,
                                     PlanOptions options = {}) {
  return ResolvePlan(module, DeviceMesh::Create({{"tp", 4}, {"ep", 2}}).value(),
                     ParallelizePlan{std::move(entries)}, options);
}

// "net1 ColwiseParallel(R -> S(-1))" an assignment.
std::vector<std::string> Lines(const ResolvedPlan& plan) {
  std::vector<std::string> lines;
  for (const Assignment& a : plan.assignments) {
    lines.push_back(absl::StrCat(a.fqn, " ", ToString(a.style)));
  }
  return lines;
}

// "PAIRED at mlp: PairwiseParallel: module …" a remark.
std::vector<std::string> Remarks(const ResolvedPlan& plan) {
  std::vector<std::string> remarks;
  for (const Diagnostic& d : plan.diagnostics) {
    EXPECT_EQ(d.severity == Severity::kNote, d.reason == "PAIRED");
    remarks.push_back(absl::StrCat(d.reason, " at ", d.fqn, ": ", d.message));
  }
  return remarks;
}

// A root of this graph around modules of these names; those without a type are
// linears of 4 to 4.
GraphModule Around(
    std::vector<Node> nodes,
    const std::vector<std::pair<std::string, std::string>>& modules) {
  std::vector<ModuleNode> all = {Root(std::move(nodes))};
  std::vector<Parameter> parameters;
  for (const auto& [fqn, type] : modules) {
    all.push_back(Mod(fqn, type.empty() ? "Linear" : type));
    if (!type.empty()) continue;
    parameters.push_back(Param(fqn + ".weight", {4, 4}));
  }
  return GraphModule::Create(std::move(all), std::move(parameters)).value();
}

GraphModule Two() { return Mlp(); }

GraphModule CalledBackwards() {
  return Around({Placeholder("x"), Call("a", "in", {Ref("x")}),
                 Call("r", "aten.relu.default", {Ref("a")}),
                 Call("b", "out", {Ref("r")}), Output(Ref("b"))},
                {{"out", ""}, {"in", ""}});
}

GraphModule Attention() {
  return Around({Placeholder("x"), Call("q", "wq", {Ref("x")}),
                 Call("k", "wk", {Ref("x")}), Call("v", "wv", {Ref("x")}),
                 Call("s", "aten.scaled_dot_product_attention.default",
                      {Ref("q"), Ref("k"), Ref("v")}),
                 Call("o", "wo", {Ref("s")}), Output(Ref("o"))},
                {{"wq", ""}, {"wk", ""}, {"wv", ""}, {"wo", ""}});
}

GraphModule Gated() {
  return Around(
      {Placeholder("x"), Call("g", "gate", {Ref("x")}),
       Call("s", "aten.silu.default", {Ref("g")}), Call("u", "up", {Ref("x")}),
       Call("m", "aten.mul.Tensor", {Ref("s"), Ref("u")}),
       Call("d", "down", {Ref("m")}), Output(Ref("d"))},
      {{"gate", ""}, {"up", ""}, {"down", ""}});
}

GraphModule Chain(int count) {
  std::vector<Node> nodes = {Placeholder("n0")};
  std::vector<std::pair<std::string, std::string>> linears;
  for (int i = 1; i <= count; ++i) {
    linears.push_back({absl::StrCat("l", i), ""});
    nodes.push_back(Call(absl::StrCat("n", i), linears.back().first,
                         {Ref(absl::StrCat("n", i - 1))}));
  }
  nodes.push_back(Output(Ref(absl::StrCat("n", count))));
  return Around(std::move(nodes), linears);
}
GraphModule Three() { return Chain(3); }
GraphModule Five() { return Chain(5); }

// x + b(a(x)), twice: what is added to is no part of a pair.
GraphModule Residual() {
  return Around(
      {Placeholder("x"), Call("a1", "a", {Ref("x")}),
       Call("b1", "b", {Ref("a1")}),
       Call("y", "aten.add.Tensor", {Ref("x"), Ref("b1")}),
       Call("c1", "c", {Ref("y")}), Call("d1", "d", {Ref("c1")}),
       Call("z", "aten.add.Tensor", {Ref("y"), Ref("d1")}), Output(Ref("z"))},
      {{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
}

// Nothing reads the router's scores but a product.
GraphModule Router() {
  return Around(
      {Placeholder("x"), Call("s", "router", {Ref("x")}),
       Call("u", "up", {Ref("x")}), Call("d", "down", {Ref("u")}),
       Call("m", "aten.mul.Tensor", {Ref("d"), Ref("s")}), Output(Ref("m"))},
      {{"router", ""}, {"up", ""}, {"down", ""}});
}

GraphModule Siblings() {
  return Around(
      {Placeholder("x"), Call("a", "one", {Ref("x")}),
       Call("b", "two", {Ref("x")}),
       Call("c", "aten.add.Tensor", {Ref("a"), Ref("b")}), Output(Ref("c"))},
      {{"one", ""}, {"two", ""}});
}

GraphModule JoinedInAList() {
  Node cat = Call("c", "aten.cat.default", {});
  cat.args = {Argument{ArgumentList{Ref("a"), Ref("b")}}};
  Node read = Call("d", "down", {});
  read.kwargs["input"] = Ref("c");
  return Around({Placeholder("x"), Call("a", "one", {Ref("x")}),
                 Call("b", "two", {Ref("x")}), cat, read, Output(Ref("d"))},
                {{"one", ""}, {"two", ""}, {"down", ""}});
}

// The same linear before and after: what it was first, it stays.
GraphModule CalledTwice() {
  return Around({Placeholder("x"), Call("a", "in", {Ref("x")}),
                 Call("b", "in", {Ref("a")}), Call("c", "out", {Ref("b")}),
                 Call("d", "out", {Ref("c")}), Output(Ref("d"))},
                {{"in", ""}, {"out", ""}});
}

// Of a ModuleList it is the module around it that calls its children.
GraphModule Listed() {
  return Around({Placeholder("x"), Call("a", "list.1", {Ref("x")}),
                 Call("b", "list.0", {Ref("a")}), Output(Ref("b"))},
                {{"list", "ModuleList"}, {"list.0", ""}, {"list.1", ""}});
}

// Linears around blocks that have pairs of their own, as a model's first and
// last layer are.
GraphModule AroundBlocks() {
  return Around({Placeholder("x"), Call("a", "first", {Ref("x")}),
                 Call("b", "block", {Ref("a")}),
                 Call("r", "aten.add.Tensor", {Ref("b"), Ref("a")}),
                 Call("n", "norm", {Ref("b")}), Call("c", "last", {Ref("n")}),
                 Output(Ref("c"))},
                {{"first", ""},
                 {"block", "Sequential"},
                 {"block.0", ""},
                 {"block.1", ""},
                 {"norm", "Identity"},
                 {"last", ""}});
}

GraphModule AroundActivations() {
  return Around({Placeholder("x"), Call("a", "first", {Ref("x")}),
                 Call("b", "block", {Ref("a")}), Call("c", "last", {Ref("b")}),
                 Output(Ref("c"))},
                {{"first", ""},
                 {"block", "Sequential"},
                 {"block.0", "ReLU"},
                 {"block.1", "Identity"},
                 {"last", ""}});
}

// As torch's encoder layer: an attention beside two linears.
GraphModule Encoder() {
  return GraphModule::Create(
             {Root({Placeholder("x"),
                    Call("a", "attn", {Ref("x"), Ref("x"), Ref("x")}),
                    Call("g", "getitem", {Ref("a"), {int64_t{0}}}),
                    Call("b", "up", {Ref("g")}), Call("c", "down", {Ref("b")}),
                    Output(Ref("c"))}),
              Mod("attn", "MultiheadAttention"), Mod("attn.out_proj", "Linear"),
              Mod("up", "Linear"), Mod("down", "Linear")},
             {Param("attn.in_proj_weight", {12, 4}),
              Param("attn.in_proj_bias", {12}), Param("attn.bias_k", {1, 1, 4}),
              Param("attn.bias_v", {1, 1, 4}),
              Param("attn.out_proj.weight", {4, 4}),
              Param("attn.out_proj.bias", {4}), Param("up.weight", {8, 4}),
              Param("down.weight", {4, 8})})
      .value();
}

// A linear that has linears in it is one, and no pair.
GraphModule Lora() {
  return ModuleBuilder("Root")
      .Module("lora", "my.Lora", {"torch.nn.Linear"})
      .Parameter("lora.weight", {4, 4})
      .Module("lora.path", "torch.nn.Sequential")
      .Linear("lora.path.0", 4, 2)
      .Linear("lora.path.1", 2, 4)
      .Build();
}

// Before a module is exported nothing says what it calls.
GraphModule WithoutGraph() {
  return ModuleBuilder("my.Five")
      .Linear("a", 4, 4)
      .Linear("b", 4, 4)
      .Linear("c", 4, 4)
      .Linear("d", 4, 4)
      .Linear("e", 4, 4)
      .Build();
}

GraphModule Gpt2() {
  return Around({Placeholder("x"), Call("a", "c_fc", {Ref("x")}),
                 Call("b", "c_proj", {Ref("a")}), Output(Ref("b"))},
                {{"c_fc", ""}, {"c_proj", ""}});
}

constexpr absl::string_view kOrder =
    ", in the order of registration, as no graph says which reads which; "
    "example inputs would";

std::string Paired(absl::string_view what, absl::string_view fqn = "",
                   absl::string_view style = "PairwiseParallel") {
  return absl::StrCat("PAIRED at ", fqn, ": ", style, ": module \"", fqn, "\" ",
                      what, ".");
}

struct Case {
  std::string name;
  GraphModule (*module)();
  ParallelStyle style;
  std::vector<std::string> assignments;
  std::vector<std::string> remarks;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class ExpandPairsTest : public ::testing::TestWithParam<Case> {};

TEST_P(ExpandPairsTest, PairsWhatReadsEachOther) {
  const auto plan = Resolve(GetParam().module(), {Entry("", GetParam().style)});

  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(Lines(*plan), ElementsAreArray(GetParam().assignments));
  EXPECT_THAT(Remarks(*plan), ElementsAreArray(GetParam().remarks));
}

std::string Col(absl::string_view fqn, absl::string_view input = "R") {
  return absl::StrCat(fqn, " ColwiseParallel(", input, " -> S(-1))");
}
std::string Row(absl::string_view fqn, absl::string_view output = "R") {
  return absl::StrCat(fqn, " RowwiseParallel(S(-1) -> ", output, ")");
}

INSTANTIATE_TEST_SUITE_P(
    Selection, ExpandPairsTest,
    ::testing::Values(
        Case{"I1 I2 two linears",
             Two,
             kPairs,
             {Col("net1"), Row("net2")},
             {Paired("pairs net1 (colwise) -> net2 (rowwise)")}},
        Case{"I2 children without a graph",
             [] { return MlpStacked(2); },
             kPairs,
             {Col("layers.0.net1"), Row("layers.0.net2"), Col("layers.1.net1"),
              Row("layers.1.net2")},
             {Paired(absl::StrCat("pairs net1 (colwise) -> net2 (rowwise)",
                                  kOrder),
                     "layers.0"),
              Paired(absl::StrCat("pairs net1 (colwise) -> net2 (rowwise)",
                                  kOrder),
                     "layers.1")}},
        Case{"I2 the children of a list",
             Listed,
             kPairs,
             {Row("list.0"), Col("list.1")},
             {Paired("pairs 1 (colwise) -> 0 (rowwise)", "list")}},
        Case{"I2 linears around blocks",
             AroundBlocks,
             kPairs,
             {Col("block.0"), Row("block.1")},
             {Paired("pairs 0 (colwise) -> 1 (rowwise)", "block")}},
        Case{"I2 linears around activations",
             AroundActivations,
             kPairs,
             {Col("first"), Row("last")},
             {Paired("pairs first (colwise) -> last (rowwise)")}},
        Case{"Conv1D",
             Gpt2,
             kPairs,
             {Col("c_fc"), Row("c_proj")},
             {Paired("pairs c_fc (colwise) -> c_proj (rowwise)")}},
        Case{"J5 an attention beside linears",
             Encoder,
             kLayouts,
             {"attn PairwiseParallel(S(1) -> S(0))", Row("attn.out_proj"),
              Col("up", "S(1)"), Row("down", "S(0)")},
             {Paired("pairs up (colwise) -> down (rowwise)"),
              Paired("is a MultiheadAttention, cut by its heads", "attn")}}),
    CaseName<Case>);

INSTANTIATE_TEST_SUITE_P(
    Order, ExpandPairsTest,
    ::testing::Values(
        Case{"I3 an odd last one",
             Three,
             kLayouts,
             {Col("l1", "S(1)"), Row("l2", "S(0)")},
             {Paired("pairs l1 (colwise) -> l2 (rowwise)")}},
        Case{"I3 layouts of the first and last",
             Five,
             kLayouts,
             {Col("l1", "S(1)"), Row("l2"), Col("l3"), Row("l4", "S(0)")},
             {Paired("pairs l1 (colwise) -> l2 (rowwise); l3 (colwise) -> l4 "
                     "(rowwise)")}},
        Case{"I3 without a graph",
             WithoutGraph,
             kLayouts,
             {Col("a", "S(1)"), Row("b"), Col("c"), Row("d", "S(0)")},
             {Paired(absl::StrCat("pairs a (colwise) -> b (rowwise); c "
                                  "(colwise) -> d (rowwise)",
                                  kOrder))}},
        Case{"I4 called backwards",
             CalledBackwards,
             kLayouts,
             {Row("out", "S(0)"), Col("in", "S(1)")},
             {Paired("pairs in (colwise) -> out (rowwise)")}},
        Case{"I4 four projections",
             Attention,
             kLayouts,
             {Col("wq", "S(1)"), Col("wk", "S(1)"), Col("wv", "S(1)"),
              Row("wo", "S(0)")},
             {Paired("pairs wq, wk, wv (colwise) -> wo (rowwise)")}},
        Case{"I4 a gate",
             Gated,
             kPairs,
             {Col("gate"), Col("up"), Row("down")},
             {Paired("pairs gate, up (colwise) -> down (rowwise)")}},
        Case{"I4 residuals",
             Residual,
             kLayouts,
             {Col("a", "S(1)"), Row("b"), Col("c"), Row("d", "S(0)")},
             {Paired("pairs a (colwise) -> b (rowwise); c (colwise) -> d "
                     "(rowwise)")}},
        Case{"I4 one that nothing reads",
             Router,
             kPairs,
             {Col("up"), Row("down")},
             {Paired("pairs up (colwise) -> down (rowwise)")}},
        Case{"I4 read in a list and by name",
             JoinedInAList,
             kPairs,
             {Col("one"), Col("two"), Row("down")},
             {Paired("pairs one, two (colwise) -> down (rowwise)")}},
        Case{"I4 called twice",
             CalledTwice,
             kPairs,
             {Col("in"), Row("out")},
             {Paired("pairs in (colwise) -> out (rowwise)")}},
        Case{"I6 cut along the sequence",
             Two,
             kSequence,
             {Col("net1", "S(0)"), Row("net2", "S(0)")},
             {Paired("pairs net1 (colwise) -> net2 (rowwise)", "",
                     "PairwiseSequenceParallel")}}),
    CaseName<Case>);

std::string Nothing(absl::string_view type) {
  return absl::StrCat(
      "NOTHING_PAIRED at : PairwiseParallel on module \"\" (", type,
      ") found nothing to pair: it takes two Linears of one module, the second "
      "of which reads what the first one makes, or an nn.MultiheadAttention. "
      "Nothing is sharded there.");
}

INSTANTIATE_TEST_SUITE_P(
    Nothing, ExpandPairsTest,
    ::testing::Values(
        Case{"I4 linears side by side",
             Siblings,
             kPairs,
             {},
             {Nothing("Model")}},
        Case{"a linear within a linear", Lora, kPairs, {}, {Nothing("Root")}}),
    CaseName<Case>);

TEST(ExpandPairs, I4NothingPairedIsAnErrorWhereWarningsAre) {
  EXPECT_THAT(Resolve(Siblings(), {Entry("", kPairs)},
                      {.mesh_dim = "", .strict = true}),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("found nothing to pair")),
                    HasReason("NOTHING_PAIRED")));
}

TEST(ExpandPairs, I5OneLinearIsNoPair) {
  for (const ParallelStyle& style : {kPairs, kSequence}) {
    EXPECT_THAT(
        Resolve(Mlp(), {Entry("net1", style)}),
        AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(StyleName(style)),
                             HasSubstr("more than one nn.Linear needed for a "
                                       "MLP, or an nn.MultiheadAttention; got: "
                                       "torch.nn.Linear"))),
              HasReason("STYLE_UNSUPPORTED_MODULE")));
  }
}

TEST(ExpandPairs, HeadsCutParameters) {
  const GraphModule module = Encoder();
  const auto plan = Resolve(module, {Entry("attn", kPairs)});
  ASSERT_THAT(plan, IsOk());
  std::vector<std::string> cuts;
  for (size_t i = 0; i < module.parameters().size(); ++i) {
    cuts.push_back(absl::StrCat(module.parameters()[i].fqn, " ",
                                ToString(plan->parameter_specs[i])));
  }
  EXPECT_THAT(
      cuts, ElementsAre(
                "attn.in_proj_weight [S(0), R]", "attn.in_proj_bias [S(0), R]",
                "attn.bias_k [S(2), R]", "attn.bias_v [S(2), R]",
                "attn.out_proj.weight [S(1), R]", "attn.out_proj.bias [R, R]",
                "up.weight [R, R]", "down.weight [R, R]"));
}

TEST(ExpandPairs, OnTheMeshDimThatTheStyleNames) {
  const auto plan = Resolve(Mlp(), {Entry("", {PairwiseParallel{}, "ep"})});
  ASSERT_THAT(plan, IsOk());
  for (const Assignment& a : plan->assignments) EXPECT_EQ(a.mesh_dim, 1);
  EXPECT_EQ(plan->assignments.size(), 2);
}

TEST(ExpandPairs, AnotherStyleOfAPairIsAConflict) {
  EXPECT_THAT(Resolve(Mlp(), {Entry("", kPairs), Entry("net1", Colwise())}),
              IsOk());
  EXPECT_THAT(Resolve(Mlp(), {Entry("", kPairs), Entry("net*", Colwise())}),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("\"net2\" can have one style")),
                    HasReason("STYLE_CONFLICT")));
}

}  // namespace
}  // namespace shardplane
