#include "common/plan_matching.h"

#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/example_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

using Styles = std::vector<ParallelStyle>;

const ParallelStyle kCol = {ColwiseParallel{}, ""};
const ParallelStyle kRow = {RowwiseParallel{}, ""};
const ParallelStyle kPrepare = {PrepareModuleInput{}, ""};

PlanEntry Entry(std::string pattern, PlanValue value) {
  return {std::move(pattern), std::move(value)};
}
PlanEntry Col(std::string pattern) { return Entry(pattern, Styles{kCol}); }
PlanEntry Row(std::string pattern) { return Entry(pattern, Styles{kRow}); }
PlanEntry None(std::string pattern) { return Entry(pattern, PlanNone{}); }
PlanEntry Nested(std::string pattern, std::vector<PlanEntry> entries) {
  return Entry(pattern, ParallelizePlan{std::move(entries)});
}

// "net1: ColwiseParallel" a match, in order.
std::vector<std::string> MatchTexts(const GraphModule& module,
                                    const PlanMatches& result) {
  std::vector<std::string> texts;
  for (const PlanMatch& match : result.matches) {
    texts.push_back(absl::StrCat(module.modules()[match.module].fqn, ": ",
                                 StyleName(*match.style)));
  }
  return texts;
}

// "NO_PLAN net1" a warning: reason, FQN, and what may have been meant.
std::vector<std::string> WarningTexts(const PlanMatches& result) {
  std::vector<std::string> texts;
  for (const PlanWarning& warning : result.warnings) {
    texts.push_back(absl::StrCat(
        warning.diagnostic.reason, " '", warning.diagnostic.pattern, "' at '",
        warning.diagnostic.fqn, "'",
        warning.suggestion.empty() ? ""
                                   : absl::StrCat(" -> ", warning.suggestion)));
  }
  return texts;
}

GraphModule Mlp() { return MlpModule(); }
GraphModule Stacked() { return MlpStacked(2); }
GraphModule Blocks() { return Transformer(2); }
GraphModule OneLinear() {
  return ModuleBuilder("torch.nn.Linear")
      .Parameter("weight", {8, 4})
      .Parameter("bias", {8})
      .Build();
}

struct Case {
  std::string name;
  GraphModule (*module)();
  std::vector<PlanEntry> plan;
  std::vector<std::string> matches;
  std::vector<std::string> warnings = {};
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class MatchPlanTest : public ::testing::TestWithParam<Case> {};

TEST_P(MatchPlanTest, FollowsPyTorch) {
  const GraphModule module = GetParam().module();

  const std::optional<ParallelizePlan> plan{{GetParam().plan}};

  const PlanMatches result = MatchPlan(module, plan);

  EXPECT_THAT(MatchTexts(module, result), ElementsAreArray(GetParam().matches));
  EXPECT_THAT(WarningTexts(result), ElementsAreArray(GetParam().warnings));
}

const char kCol1[] = "net1: ColwiseParallel";
const char kCol2[] = "net2: ColwiseParallel";
const char kRow2[] = "net2: RowwiseParallel";

INSTANTIATE_TEST_SUITE_P(
    OneLevel, MatchPlanTest,
    ::testing::Values(
        Case{"names", Mlp, {Col("net1"), Row("net2")}, {kCol1, kRow2}},
        Case{"dict order", Mlp, {Row("net2"), Col("net1")}, {kRow2, kCol1}},
        Case{"star", Mlp, {Col("net*")}, {kCol1, kCol2}},
        Case{"question", Mlp, {Col("net?")}, {kCol1, kCol2}},
        Case{"range", Mlp, {Col("net[1-2]")}, {kCol1, kCol2}},
        Case{"set", Mlp, {Col("net[2]")}, {kCol2}},
        Case{"negated set", Mlp, {Col("net[!2]")}, {kCol1}},
        Case{"star hits all children",
             Mlp,
             {Col("*")},
             {kCol1, "relu: ColwiseParallel", kCol2}},
        Case{"two stars as one",
             Mlp,
             {Col("**")},
             {kCol1, "relu: ColwiseParallel", kCol2}},
        Case{"every entry is applied to all that it matches",
             Mlp,
             {Col("net*"), Row("net2")},
             {kCol1, kCol2, kRow2}},
        Case{"no specificity",
             Mlp,
             {Row("net2"), Col("net*")},
             {kRow2, kCol1, kCol2}},
        Case{"the module itself", OneLinear, {Col("")}, {": ColwiseParallel"}},
        Case{"the module itself and children",
             Mlp,
             {Entry("", Styles{kPrepare}), Col("net1"), Row("net2")},
             {": PrepareModuleInput", kCol1, kRow2}},
        Case{"list of styles",
             Mlp,
             {Entry("net1", Styles{kPrepare, kCol})},
             {"net1: PrepareModuleInput", kCol1}},
        Case{"empty list", Mlp, {Entry("net1", Styles{})}, {}},
        Case{"a key twice", Mlp, {Col("net1"), Col("net1")}, {kCol1, kCol1}},
        Case{"empty dict", Mlp, {}, {}},
        Case{"none",
             Mlp,
             {None("net1"), Row("net2")},
             {kRow2},
             {"NO_PLAN 'net1' at 'net1'"}},
        Case{"none for all",
             Mlp,
             {None("net*")},
             {},
             {"NO_PLAN 'net*' at 'net1'", "NO_PLAN 'net*' at 'net2'"}},
        Case{"none for the module itself",
             Mlp,
             {None("")},
             {},
             {"NO_PLAN '' at ''"}}),
    CaseName<Case>);

INSTANTIATE_TEST_SUITE_P(
    Deeper, MatchPlanTest,
    ::testing::Values(
        Case{"full names",
             Stacked,
             {Col("layers.0.net1")},
             {"layers.0.net1: ColwiseParallel"}},
        Case{
            "star in the middle",
            Stacked,
            {Col("layers.*.net[1]"), Row("layers.*.net[2]")},
            {"layers.0.net1: ColwiseParallel", "layers.1.net1: ColwiseParallel",
             "layers.0.net2: RowwiseParallel",
             "layers.1.net2: RowwiseParallel"}},
        Case{"a star does not cross a dot",
             Stacked,
             {Col("*net1")},
             {},
             {"PATTERN_WITHOUT_MATCH '*net1' at ''"}},
        Case{"two stars do not cross a dot",
             Stacked,
             {Col("**.net1")},
             {},
             {"PATTERN_WITHOUT_MATCH '**.net1' at 'layers' -> *.net1"}},
        Case{"set of numbers",
             Stacked,
             {Col("layers.[0-9].net1")},
             {"layers.0.net1: ColwiseParallel",
              "layers.1.net1: ColwiseParallel"}},
        Case{"a container",
             Stacked,
             {Entry("layers", Styles{kPrepare})},
             {"layers: PrepareModuleInput"}},
        Case{"all of a list",
             Stacked,
             {Entry("layers.*", Styles{kPrepare})},
             {"layers.0: PrepareModuleInput", "layers.1: PrepareModuleInput"}},
        Case{"deep names",
             Blocks,
             {Col("layers.1.attention.w[qkv]")},
             {"layers.1.attention.wq: ColwiseParallel",
              "layers.1.attention.wk: ColwiseParallel",
              "layers.1.attention.wv: ColwiseParallel"}},
        Case{"stars at all levels",
             Blocks,
             {Row("*.*.*.wo")},
             {"layers.0.attention.wo: RowwiseParallel",
              "layers.1.attention.wo: RowwiseParallel"},
             {"PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'tok_embeddings'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'pos_embeddings'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'dropout'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.0.attention_norm'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.0.ffn_norm'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.0.feed_forward'"
              " -> w1",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.1.attention_norm'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.1.ffn_norm'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'layers.1.feed_forward'"
              " -> w1",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'norm'",
              "PATTERN_WITHOUT_MATCH '*.*.*.wo' at 'output'"}},
        Case{
            "nested dict",
            Stacked,
            {Nested("layers.*", {Col("net1"), Row("net2")})},
            {"layers.0.net1: ColwiseParallel", "layers.0.net2: RowwiseParallel",
             "layers.1.net1: ColwiseParallel",
             "layers.1.net2: RowwiseParallel"}},
        Case{"nested twice",
             Stacked,
             {Nested("layers", {Nested("1", {Col("net1")})})},
             {"layers.1.net1: ColwiseParallel"}},
        Case{"nested at the module itself",
             Mlp,
             {Nested("", {Col("net1")})},
             {kCol1}},
        Case{
            "nested with the module itself",
            Stacked,
            {Nested("layers.0", {Entry("", Styles{kPrepare}), Col("net1")})},
            {"layers.0: PrepareModuleInput", "layers.0.net1: ColwiseParallel"}},
        Case{"nested empty", Stacked, {Nested("layers.*", {})}, {}},
        Case{"nested none",
             Stacked,
             {Nested("layers.0", {None("net1"), Row("net2")})},
             {"layers.0.net2: RowwiseParallel"},
             {"NO_PLAN 'layers.0.net1' at 'layers.0.net1'"}},
        Case{"nested without match",
             Stacked,
             {Nested("layers.*", {Col("net3")})},
             {},
             {"PATTERN_WITHOUT_MATCH 'layers.*.net3' at 'layers.0' -> net1",
              "PATTERN_WITHOUT_MATCH 'layers.*.net3' at 'layers.1' -> net1"}},
        Case{"trailing dot", Mlp, {Col("net1.")}, {kCol1}},
        Case{"trailing dot on a star", Mlp, {Col("net*.")}, {kCol1, kCol2}},
        Case{"trailing dot of a nested dict",
             Stacked,
             {Nested("layers.0.", {Col("net1")})},
             {"layers.0.net1: ColwiseParallel"}}),
    CaseName<Case>);

INSTANTIATE_TEST_SUITE_P(
    WithoutMatch, MatchPlanTest,
    ::testing::Values(
        // The plan of PyTorch's test_parallelize_module_with_no_match.
        Case{"entries before and after apply",
             Mlp,
             {Col("net0.hello.world"), Col("net1"), Row("net2"), Row("net3")},
             {kCol1, kRow2},
             {"PATTERN_WITHOUT_MATCH 'net0.hello.world' at '' -> net1",
              "PATTERN_WITHOUT_MATCH 'net3' at '' -> net1"}},
        Case{"a token is not skipped",
             Mlp,
             {Col("net0.net1")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net0.net1' at '' -> net1"}},
        Case{"below a leaf",
             Mlp,
             {Col("net1.weight")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net1.weight' at 'net1'"}},
        Case{"leading dot",
             Mlp,
             {Col(".net1")},
             {},
             {"PATTERN_WITHOUT_MATCH '.net1' at ''"}},
        Case{"two dots",
             Stacked,
             {Col("layers..net1")},
             {},
             {"PATTERN_WITHOUT_MATCH 'layers..net1' at 'layers'"}},
        Case{"two trailing dots",
             Mlp,
             {Col("net1..")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net1..' at 'net1'"}},
        Case{"a dot alone",
             Mlp,
             {Col(".")},
             {},
             {"PATTERN_WITHOUT_MATCH '.' at ''"}},
        Case{"a dot in a set",
             Mlp,
             {Col("net[1.2]")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net[1.2]' at '' -> net1"}},
        Case{"wrong case",
             Mlp,
             {Col("Net1")},
             {},
             {"PATTERN_WITHOUT_MATCH 'Net1' at '' -> net1"}},
        Case{"misspelt",
             Blocks,
             {Col("layers.0.atention.wq")},
             {},
             {"PATTERN_WITHOUT_MATCH 'layers.0.atention.wq' at 'layers.0'"
              " -> attention"}},
        Case{"nothing like it",
             Mlp,
             {Col("encoder")},
             {},
             {"PATTERN_WITHOUT_MATCH 'encoder' at ''"}},
        Case{"index forgotten",
             Blocks,
             {Col("layers.attention.wq")},
             {},
             {"PATTERN_WITHOUT_MATCH 'layers.attention.wq' at 'layers'"
              " -> *.attention"}},
        Case{"name of another root",
             Stacked,
             {Col("net1")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net1' at ''"}},
        Case{"one warning a parent",
             Stacked,
             {Col("layers.*.net9")},
             {},
             {"PATTERN_WITHOUT_MATCH 'layers.*.net9' at 'layers.0' -> net1",
              "PATTERN_WITHOUT_MATCH 'layers.*.net9' at 'layers.1' -> net1"}},
        Case{"none without match",
             Mlp,
             {None("net3")},
             {},
             {"PATTERN_WITHOUT_MATCH 'net3' at '' -> net1"}}),
    CaseName<Case>);

TEST(MatchPlan, WithoutAPlanWarns) {
  const PlanMatches result = MatchPlan(MlpModule(), std::nullopt);

  EXPECT_TRUE(result.matches.empty());
  EXPECT_THAT(WarningTexts(result), ElementsAre("NO_PLAN '' at ''"));
}

TEST(MatchPlan, KeepsThePatternAsWritten) {
  const std::optional<ParallelizePlan> plan{
      {{Nested("layers.*", {Col("net1")})}}};

  const PlanMatches result = MatchPlan(MlpStacked(1), plan);

  ASSERT_EQ(result.matches.size(), 1u);
  EXPECT_EQ(result.matches[0].pattern, "layers.*.net1");
}

TEST(MatchPlan, WarningNamesKeyTokenAndModule) {
  const PlanMatches result =
      MatchPlan(MlpStacked(1), ParallelizePlan{{Col("layers.*.net3")}});

  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_EQ(result.warnings[0].diagnostic.message,
            "Parallelize plan key 'layers.*.net3' could not be resolved: no "
            "submodule matching token 'net3' in module \"layers.0\" "
            "(MLPModule), skipping this plan entry. Did you mean 'net1'?");
  EXPECT_EQ(result.warnings[0].diagnostic.severity, Severity::kWarning);
}

}  // namespace
}  // namespace shardplane
