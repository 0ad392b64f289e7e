#include "common/parallelize_plan.h"

#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/example_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::Eq;
using ::testing::HasSubstr;

using Styles = std::vector<ParallelStyle>;

const ParallelStyle kCol = {ColwiseParallel{}, ""};
const ParallelStyle kRow = {RowwiseParallel{}, ""};
const ParallelStyle kPrepare = {
    PrepareModuleInput{.inputs = {{Shard{0}, Replicate{}}}}, ""};

PlanEntry Entry(std::string pattern, Styles styles) {
  return {std::move(pattern), std::move(styles)};
}

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return DeviceMesh::Create(std::move(dims)).value();
}

absl::StatusOr<ResolvedPlan> Resolve(const GraphModule& module,
                                     std::vector<PlanEntry> entries,
                                     PlanOptions options = {}) {
  return ResolvePlan(module, Mesh({{"tp", 4}}),
                     ParallelizePlan{std::move(entries)}, options);
}

// "net1.weight [S(0)]" a parameter that is not replicated; where its name
// wants it otherwise than it is stored, "a.weight [S(0)] as [S(1)]".
std::vector<std::string> CutTexts(const GraphModule& module,
                                  const ResolvedPlan& plan) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < module.parameters().size(); ++i) {
    if (IsFullyReplicated(plan.parameter_specs[i])) continue;
    texts.push_back(absl::StrCat(module.parameters()[i].fqn, " ",
                                 ToString(plan.parameter_specs[i])));
    if (plan.wanted_specs[i] == plan.parameter_specs[i]) continue;
    absl::StrAppend(&texts.back(), " as ", ToString(plan.wanted_specs[i]));
  }
  return texts;
}

struct TextCase {
  std::string name;
  ParallelStyle style;
  std::string text;
};
void PrintTo(const TextCase& c, std::ostream* os) { *os << c.name; }

class StyleTextTest : public ::testing::TestWithParam<TextCase> {};

TEST_P(StyleTextTest, ShowsLayouts) {
  EXPECT_EQ(ToString(GetParam().style), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    All, StyleTextTest,
    ::testing::Values(
        TextCase{"colwise", kCol, "ColwiseParallel(R -> S(-1))"},
        TextCase{"rowwise", kRow, "RowwiseParallel(S(-1) -> R)"},
        TextCase{"own mesh dim",
                 {ColwiseParallel{Shard{0}, Replicate{}}, "ep"},
                 "ColwiseParallel(S(0) -> R; mesh_dim ep)"},
        TextCase{"prepare input",
                 {PrepareModuleInput{
                      .inputs = {{Shard{0}, Replicate{}}, {}},
                      .kwargs = {{"mask", {Replicate{}, std::nullopt}}}},
                  ""},
                 "PrepareModuleInput(S(0) -> R, None, mask: R)"},
        TextCase{"prepare output",
                 {PrepareModuleOutput{{{Replicate{}, Shard{0}}}}, ""},
                 "PrepareModuleOutput(R -> S(0))"},
        TextCase{"prepare both",
                 {PrepareModuleInputOutput{
                      {.inputs = {{Shard{0}, Replicate{}}}, .kwargs = {}},
                      {{{Replicate{}, Shard{1}}}}},
                  ""},
                 "PrepareModuleInputOutput(in: S(0) -> R; out: R -> S(1))"},
        TextCase{"pairs",
                 {PairwiseParallel{Shard{0}, Replicate{}}, ""},
                 "PairwiseParallel(S(0) -> R)"},
        TextCase{"pairs cut along the sequence",
                 {PairwiseSequenceParallel{}, ""},
                 "PairwiseSequenceParallel(S(0))"},
        TextCase{"loss", {LossParallel{}, ""}, "LossParallel(S(-1))"},
        TextCase{"unknown", {UnknownStyle{"Diagonal"}, ""}, "Diagonal(?)"}),
    CaseName<TextCase>);

GraphModule Mlp() { return MlpModule(); }
GraphModule Blocks() { return Transformer(1); }
// A subclass with a parameter and a child of its own, and a buffer.
GraphModule Subclass() {
  return ModuleBuilder("Root")
      .Module("lora", "my.LoraLinear", {"torch.nn.modules.linear.Linear"})
      .Parameter("lora.weight", {8, 4})
      .Parameter("lora.bias", {8})
      .Parameter("lora.scale", {8, 4})
      .Buffer("lora.mask", {DType::kBool, {8, 4}})
      .Linear("lora.down", 4, 2)
      .Build();
}

// As GPT-2 has it: a weight of [inputs, outputs].
GraphModule Gpt2Mlp() {
  return ModuleBuilder("Root")
      .Module("c_fc", "transformers.pytorch_utils.Conv1D")
      .Parameter("c_fc.weight", {4, 16})
      .Parameter("c_fc.bias", {16})
      .Module("c_proj", "transformers.pytorch_utils.Conv1D")
      .Parameter("c_proj.weight", {16, 4})
      .Parameter("c_proj.bias", {4})
      .Build();
}

struct CutCase {
  std::string name;
  GraphModule (*module)();
  std::vector<PlanEntry> plan;
  std::vector<std::string> cuts;
};
void PrintTo(const CutCase& c, std::ostream* os) { *os << c.name; }

class CutTest : public ::testing::TestWithParam<CutCase> {};

TEST_P(CutTest, PlacesParametersAsPyTorchDoes) {
  const GraphModule module = GetParam().module();

  const auto plan = Resolve(module, GetParam().plan);

  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(CutTexts(module, *plan), ElementsAreArray(GetParam().cuts));
}

INSTANTIATE_TEST_SUITE_P(
    All, CutTest,
    ::testing::Values(
        CutCase{"colwise linear",
                Mlp,
                {Entry("net1", {kCol})},
                {"net1.weight [S(0)]", "net1.bias [S(0)]"}},
        CutCase{"rowwise linear",
                Mlp,
                {Entry("net2", {kRow})},
                {"net2.weight [S(1)]"}},
        CutCase{"colwise embedding",
                Blocks,
                {Entry("pos_embeddings", {kCol})},
                {"pos_embeddings.weight [S(1)]"}},
        CutCase{"rowwise embedding",
                Blocks,
                {Entry("pos_embeddings", {kRow})},
                {"pos_embeddings.weight [S(0)]"}},
        CutCase{"without bias",
                Blocks,
                {Entry("layers.0.attention.wq", {kCol})},
                {"layers.0.attention.wq.weight [S(0)]"}},
        CutCase{"prepare cuts nothing", Mlp, {Entry("", {kPrepare})}, {}},
        CutCase{"prepare stacks",
                Mlp,
                {Entry("net1", {kPrepare, kCol, kPrepare})},
                {"net1.weight [S(0)]", "net1.bias [S(0)]"}},
        CutCase{"the same style twice",
                Mlp,
                {Entry("net1", {kCol}), Entry("net?", {kCol})},
                {"net1.weight [S(0)]", "net1.bias [S(0)]", "net2.weight [S(0)]",
                 "net2.bias [S(0)]"}},
        CutCase{
            "Conv1D",
            Gpt2Mlp,
            {Entry("c_fc", {kCol}), Entry("c_proj", {kRow})},
            {"c_fc.weight [S(1)]", "c_fc.bias [S(0)]", "c_proj.weight [S(0)]"}},
        CutCase{"a subclass by weight and bias alone",
                Subclass,
                {Entry("lora", {kCol})},
                {"lora.weight [S(0)]", "lora.bias [S(0)]"}},
        CutCase{"tied by the first name",
                Blocks,
                {Entry("tok_embeddings", {kRow})},
                {"tok_embeddings.weight [S(0)]", "output.weight [S(0)]"}},
        CutCase{"tied by the alias",
                Blocks,
                {Entry("output", {kCol})},
                {"tok_embeddings.weight [S(0)]", "output.weight [S(0)]"}},
        CutCase{"tied by both alike",
                Blocks,
                {Entry("tok_embeddings", {kRow}), Entry("output", {kCol})},
                {"tok_embeddings.weight [S(0)]", "output.weight [S(0)]"}},
        CutCase{
            "tied and wanted otherwise",
            Blocks,
            {Entry("tok_embeddings", {kCol}), Entry("output", {kCol})},
            {"tok_embeddings.weight [S(1)]", "output.weight [S(1)] as [S(0)]"}},
        CutCase{"tied and the alias first",
                Blocks,
                {Entry("output", {kCol}), Entry("tok_embeddings", {kCol})},
                {"tok_embeddings.weight [S(0)] as [S(1)]",
                 "output.weight [S(0)]"}}),
    CaseName<CutCase>);

TEST(ResolvePlan, NotesTiedWeightsThatAreWantedInTwoWays) {
  const auto plan = Resolve(
      Blocks(), {Entry("output", {kCol}), Entry("tok_embeddings", {kCol})},
      {.mesh_dim = "", .strict = true});  // a note is no warning

  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->diagnostics.size(), 1u);
  const Diagnostic& note = plan->diagnostics[0];
  EXPECT_EQ(note.severity, Severity::kNote);
  EXPECT_EQ(note.reason, "TIED_PLACEMENT");
  EXPECT_EQ(note.message,
            "\"output.weight\" and \"tok_embeddings.weight\" are one tensor; "
            "it is stored as [S(0)] (pattern 'output') and redistributed to "
            "[S(1)] (pattern 'tok_embeddings') where that is used.");
}

TEST(ResolvePlan, AssignmentsComeInTheOrderOfThePlan) {
  const auto plan =
      Resolve(MlpModule(), {Entry("net2", {kRow}), Entry("", {kPrepare}),
                            Entry("net[1]", {kPrepare, kCol})});

  ASSERT_THAT(plan, IsOk());
  std::vector<std::string> texts;
  for (const Assignment& assignment : plan->assignments) {
    texts.push_back(absl::StrCat("'", assignment.pattern, "' ", assignment.fqn,
                                 " ", StyleName(assignment.style)));
  }
  EXPECT_THAT(texts, ElementsAre("'net2' net2 RowwiseParallel",
                                 "''  PrepareModuleInput",
                                 "'net[1]' net1 PrepareModuleInput",
                                 "'net[1]' net1 ColwiseParallel"));
}

TEST(ResolvePlan, WithoutAPlanReplicatesAndWarns) {
  const GraphModule module = MlpModule();

  const auto plan = ResolvePlan(module, Mesh({{"tp", 4}}), std::nullopt, {});

  ASSERT_THAT(plan, IsOk());
  EXPECT_TRUE(CutTexts(module, *plan).empty());
  ASSERT_EQ(plan->diagnostics.size(), 1u);
  EXPECT_EQ(plan->diagnostics[0].reason, "NO_PLAN");
}

struct MeshDimCase {
  std::string name;
  std::vector<MeshDim> mesh;
  std::string plan_dim;
  std::string style_dim;
  std::string weight;  // spec of net1.weight under a colwise style
};
void PrintTo(const MeshDimCase& c, std::ostream* os) { *os << c.name; }

class MeshDimTest : public ::testing::TestWithParam<MeshDimCase> {};

TEST_P(MeshDimTest, CutsAlongTheRightDim) {
  const GraphModule module = MlpModule();
  const ParallelizePlan plan = {
      {Entry("net1", {{ColwiseParallel{}, GetParam().style_dim}})}};

  const auto result = ResolvePlan(module, Mesh(GetParam().mesh), plan,
                                  {.mesh_dim = GetParam().plan_dim});

  ASSERT_THAT(result, IsOk());
  EXPECT_THAT(result->parameter_specs[0], PlacementsAre(GetParam().weight));
}

INSTANTIATE_TEST_SUITE_P(
    All, MeshDimTest,
    ::testing::Values(
        MeshDimCase{"tp by name", {{"dp", 2}, {"tp", 2}}, "", "", "[R, S(0)]"},
        MeshDimCase{"the only dim", {{"x", 4}}, "", "", "[S(0)]"},
        MeshDimCase{"given", {{"dp", 2}, {"tp", 2}}, "dp", "", "[S(0), R]"},
        MeshDimCase{"given where there is no tp",
                    {{"a", 2}, {"b", 2}},
                    "b",
                    "",
                    "[R, S(0)]"},
        MeshDimCase{
            "of the style", {{"ep", 2}, {"tp", 2}}, "", "ep", "[S(0), R]"},
        MeshDimCase{"three dims",
                    {{"a", 2}, {"tp", 2}, {"b", 2}},
                    "",
                    "",
                    "[R, S(0), R]"}),
    CaseName<MeshDimCase>);

GraphModule BadRank() {
  return ModuleBuilder("Root")
      .Module("conv", "my.Conv", {"torch.nn.Linear"})
      .Parameter("conv.weight", {8, 4, 3})
      .Module("bare", "torch.nn.Linear")
      .Build();
}

struct ErrorCase {
  std::string name;
  GraphModule (*module)();
  std::vector<PlanEntry> plan;
  absl::StatusCode code;
  std::string reason;
  std::string message;
};
void PrintTo(const ErrorCase& c, std::ostream* os) { *os << c.name; }

class PlanErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(PlanErrorTest, NamesModuleStyleAndPattern) {
  const auto plan = Resolve(GetParam().module(), GetParam().plan);

  EXPECT_THAT(plan, AllOf(StatusIs(GetParam().code, Eq(GetParam().message)),
                          HasReason(GetParam().reason)));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    All, PlanErrorTest,
    ::testing::Values(
        ErrorCase{"two styles",
                  Mlp,
                  {Entry("net*", {kCol}), Entry("net2", {kRow})},
                  kInvalid,
                  "STYLE_CONFLICT",
                  "module \"net2\" can have one style for its parameters and "
                  "has ColwiseParallel(R -> S(-1)) by pattern 'net*'; got: "
                  "RowwiseParallel(S(-1) -> R) by pattern 'net2'"},
        ErrorCase{"one style with two layouts",
                  Mlp,
                  {Entry("net1", {kCol, {ColwiseParallel{Shard{0}}, ""}})},
                  kInvalid,
                  "STYLE_CONFLICT",
                  "module \"net1\" can have one style for its parameters and "
                  "has ColwiseParallel(R -> S(-1)) by pattern 'net1'; got: "
                  "ColwiseParallel(S(0) -> S(-1)) by pattern 'net1'"},
        ErrorCase{"colwise activation",
                  Mlp,
                  {Entry("*", {kCol})},
                  kUnimplemented,
                  "STYLE_UNSUPPORTED_MODULE",
                  "ColwiseParallel on module \"relu\" (pattern '*') takes a "
                  "Linear, an Embedding or a Conv1D of transformers; got: "
                  "torch.nn.modules.activation.ReLU"},
        ErrorCase{"rowwise root",
                  Mlp,
                  {Entry("", {kRow})},
                  kUnimplemented,
                  "STYLE_UNSUPPORTED_MODULE",
                  "RowwiseParallel on module \"\" (pattern '') takes a "
                  "Linear, an Embedding or a Conv1D of transformers; got: "
                  "MLPModule"},
        ErrorCase{"linear without weight",
                  BadRank,
                  {Entry("bare", {kCol})},
                  kUnimplemented,
                  "STYLE_UNSUPPORTED_MODULE",
                  "ColwiseParallel on module \"bare\" (pattern 'bare') takes a "
                  "Linear, an Embedding or a Conv1D of transformers with a "
                  "parameter \"weight\"; got: "
                  "torch.nn.Linear"},
        ErrorCase{"weight of three dims",
                  BadRank,
                  {Entry("conv", {kRow})},
                  kInvalid,
                  "PARAMETER_UNSUPPORTED",
                  "RowwiseParallel on parameter \"conv.weight\" (pattern "
                  "'conv') takes a tensor of 2 dims; got: f32[8, 4, 3]"},
        ErrorCase{"unknown style",
                  Mlp,
                  {Entry("net1", {{UnknownStyle{"Diagonal"}, ""}})},
                  kUnimplemented,
                  "STYLE_UNKNOWN",
                  "the style for module \"net1\" (pattern 'net1') must be one "
                  "of ColwiseParallel, RowwiseParallel, SequenceParallel, "
                  "PrepareModuleInput, PrepareModuleOutput, "
                  "PrepareModuleInputOutput, InputReshard, PairwiseParallel, "
                  "PairwiseSequenceParallel, LossParallel; got: Diagonal"},
        ErrorCase{"unknown mesh dim",
                  Mlp,
                  {Entry("net1", {{ColwiseParallel{}, "pp"}})},
                  kInvalid,
                  "UNKNOWN_MESH_DIM",
                  "ColwiseParallel on module \"net1\" (pattern 'net1') must "
                  "name a dim of mesh [tp=4]; got: \"pp\""}),
    CaseName<ErrorCase>);

TEST(ResolvePlan, FindsAllFaults) {
  const auto plan =
      Resolve(MlpModule(), {Entry("net1", {kCol}), Entry("relu", {kCol}),
                            Entry("net1", {kRow}),
                            Entry("net2", {{UnknownStyle{"Foo"}, ""}})});

  EXPECT_THAT(plan,
              StatusIs(kUnimplemented, AllOf(HasSubstr("\"relu\""),
                                             HasSubstr("(and 2 more faults"))));
  EXPECT_THAT(plan, HasMetadata("fqn", Eq("relu")));
  EXPECT_THAT(
      plan, HasMetadata("errors", AllOf(HasSubstr("\"relu\""),
                                        HasSubstr("\nmodule \"net1\" can have"),
                                        HasSubstr("got: Foo"))));
}

TEST(ResolvePlan, ConflictCarriesBothPatterns) {
  const auto plan =
      Resolve(MlpModule(), {Entry("net*", {kCol}), Entry("net2", {kRow})});

  EXPECT_THAT(plan, HasMetadata("first_pattern", Eq("net*")));
  EXPECT_THAT(plan, HasMetadata("pattern", Eq("net2")));
}

TEST(ResolvePlan, StrictMakesWarningsErrors) {
  const auto plan = Resolve(MlpModule(), {Entry("net3", {kCol})},
                            {.mesh_dim = "", .strict = true});

  EXPECT_THAT(plan, StatusIs(kInvalid, HasSubstr("key 'net3'")));
  EXPECT_THAT(plan, HasReason("PATTERN_WITHOUT_MATCH"));
  EXPECT_THAT(plan, HasMetadata("pattern", Eq("net3")));
  EXPECT_THAT(plan, HasMetadata("suggestion", Eq("net1")));
}

TEST(ResolvePlan, StrictMakesAMissingPlanAnError) {
  EXPECT_THAT(
      ResolvePlan(MlpModule(), Mesh({{"tp", 4}}), std::nullopt,
                  {.mesh_dim = "", .strict = true}),
      AllOf(StatusIs(kInvalid, HasSubstr("is None: nothing is sharded")),
            HasReason("NO_PLAN")));
}

TEST(ResolvePlan, NeedsAMeshDim) {
  EXPECT_THAT(ResolvePlan(MlpModule(), Mesh({{"a", 2}, {"b", 2}}),
                          ParallelizePlan{}, {}),
              AllOf(StatusIs(kInvalid, HasSubstr("got: mesh [a=2, b=2]")),
                    HasReason("UNKNOWN_MESH_DIM")));
  EXPECT_THAT(ResolvePlan(MlpModule(), Mesh({{"tp", 4}}), ParallelizePlan{},
                          {.mesh_dim = "dp"}),
              StatusIs(kInvalid, HasSubstr("one of [tp=4]; got: \"dp\"")));
}

}  // namespace
}  // namespace shardplane
