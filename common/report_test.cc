#include "common/report.h"

#include <cstdint>
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
using ::testing::HasSubstr;

using Styles = std::vector<ParallelStyle>;

const ParallelStyle kCol = {ColwiseParallel{}, ""};
const ParallelStyle kRow = {RowwiseParallel{}, ""};

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return DeviceMesh::Create(std::move(dims)).value();
}

// Linear(10, 16), ReLU, Linear(16, 10).
GraphModule Mlp() {
  return ModuleBuilder("torch.nn.Sequential")
      .Linear("net1", 10, 16)
      .Module("relu", "torch.nn.ReLU")
      .Linear("net2", 16, 10)
      .Build();
}

ResolvedPlan Plan(const GraphModule& module, const DeviceMesh& mesh,
                  std::vector<PlanEntry> entries) {
  return ResolvePlan(module, mesh, ParallelizePlan{std::move(entries)}, {})
      .value();
}

ResolvedPlan Pairwise(const GraphModule& module, const DeviceMesh& mesh) {
  return Plan(module, mesh, {{"net1", Styles{kCol}}, {"net2", Styles{kRow}}});
}

// "forward all_reduce 1 (320 bytes)" a count.
std::vector<std::string> Texts(const std::vector<CollectiveCount>& counts) {
  std::vector<std::string> texts;
  for (const CollectiveCount& count : counts) {
    texts.push_back(absl::StrCat(count.phase, " ", count.kind, " ", count.count,
                                 " (", count.bytes, " bytes)"));
  }
  return texts;
}

// "parameters gradients buffers" in bytes, a rank.
std::vector<std::string> Sizes(const Report& report) {
  std::vector<std::string> texts;
  for (const RankMemory& m : report.memory) {
    texts.push_back(absl::StrCat(m.parameter_bytes, " ", m.gradient_bytes, " ",
                                 m.buffer_bytes));
  }
  return texts;
}

struct LayoutCase {
  std::string name;
  ParallelStyle style;
  std::string input;
  std::string output;
  std::vector<std::string> parameters;
};
void PrintTo(const LayoutCase& c, std::ostream* os) { *os << c.name; }

class AssignmentRowTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(AssignmentRowTest, ShowsWhatTheStyleDoes) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const ResolvedPlan plan =
      Plan(module, mesh, {{"net?", Styles{GetParam().style}}});

  const Report report = BuildReport(module, mesh, plan, 0, nullptr);

  ASSERT_EQ(report.assignments.size(), 2u);
  const AssignmentRow& row = report.assignments[0];
  EXPECT_EQ(row.fqn, "net1");
  EXPECT_EQ(row.module_type, "torch.nn.modules.linear.Linear");
  EXPECT_EQ(row.style, StyleName(GetParam().style));
  EXPECT_EQ(row.pattern, "net?");
  EXPECT_EQ(row.input_layouts, GetParam().input);
  EXPECT_EQ(row.output_layouts, GetParam().output);
  std::vector<std::string> parameters;
  for (const ParameterPlacement& parameter : row.parameters) {
    parameters.push_back(absl::StrCat(parameter.name, " ",
                                      ToString(parameter.type), " ",
                                      ToString(parameter.spec)));
  }
  EXPECT_THAT(parameters, ElementsAreArray(GetParam().parameters));
}

const LayoutChange kGather = {Shard{0}, Replicate{}};

INSTANTIATE_TEST_SUITE_P(
    All, AssignmentRowTest,
    ::testing::Values(
        LayoutCase{"colwise",
                   kCol,
                   "R",
                   "S(-1)",
                   {"weight f32[16, 10] [S(0)]", "bias f32[16] [S(0)]"}},
        LayoutCase{"colwise from shards to all",
                   {ColwiseParallel{Shard{0}, Replicate{}}, ""},
                   "S(0) -> R",
                   "S(-1) -> R",
                   {"weight f32[16, 10] [S(0)]", "bias f32[16] [S(0)]"}},
        LayoutCase{"rowwise",
                   kRow,
                   "S(-1)",
                   "P(sum) -> R",
                   {"weight f32[16, 10] [S(1)]", "bias f32[16] [R]"}},
        LayoutCase{"prepare input",
                   {PrepareModuleInput{.inputs = {kGather}}, ""},
                   "S(0) -> R",
                   "",
                   {}},
        LayoutCase{"prepare output",
                   {PrepareModuleOutput{{kGather, {}}}, ""},
                   "",
                   "S(0) -> R, None",
                   {}},
        LayoutCase{"prepare both",
                   {PrepareModuleInputOutput{
                        {.inputs = {kGather}, .kwargs = {}}, {{kGather}}},
                    ""},
                   "S(0) -> R",
                   "S(0) -> R",
                   {}}),
    CaseName<LayoutCase>);

TEST(BuildReport, RowwiseEmbeddingWantsWholeIndices) {
  const GraphModule module = Transformer(1);
  const DeviceMesh mesh = Mesh({{"tp", 4}});

  const Report report = BuildReport(
      module, mesh, Plan(module, mesh, {{"pos_embeddings", Styles{kRow}}}), 0,
      nullptr);

  ASSERT_EQ(report.assignments.size(), 1u);
  EXPECT_EQ(report.assignments[0].input_layouts, "S(-1) -> R");
}

TEST(BuildReport, ShowsATiedWeightAsItIsStored) {
  const GraphModule module = Transformer(1);
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const ResolvedPlan plan =
      Plan(module, mesh,
           {{"tok_embeddings", Styles{kCol}}, {"output", Styles{kCol}}});

  const Report report = BuildReport(module, mesh, plan, 0, nullptr);

  EXPECT_EQ(report.parameters.back().name, "output.weight");
  EXPECT_THAT(report.parameters.back().spec, PlacementsAre("[S(1)]"));
  EXPECT_EQ(report.diagnostics[0].reason, "TIED_PLACEMENT");
}

// net1.weight 640, net1.bias 64 and net2.weight 640 bytes are cut.
TEST(MaterializeCollectives, ScattersAndBroadcasts) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 4}});

  EXPECT_THAT(
      Texts(MaterializeCollectives(module, mesh, Pairwise(module, mesh), 1)),
      ElementsAre("materialize scatter 3 (1344 bytes)",
                  "materialize broadcast 1 (40 bytes)"));
}

// 16 rows over 3 are padded to 18: 720 + 72 + 10 * 18 * 4 bytes.
TEST(MaterializeCollectives, CountsPadding) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 3}});

  EXPECT_THAT(
      Texts(MaterializeCollectives(module, mesh, Pairwise(module, mesh), 0)),
      ElementsAre("materialize scatter 3 (1512 bytes)",
                  "materialize broadcast 1 (40 bytes)"));
}

// Scattered along tp, each rank's part is broadcast along dp: a quarter of
// 1344 bytes; the bias is broadcast along both.
TEST(MaterializeCollectives, GoesThroughTheMeshDimsThePlansFirst) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});

  EXPECT_THAT(
      Texts(MaterializeCollectives(module, mesh, Pairwise(module, mesh), 0)),
      ElementsAre("materialize scatter 3 (1344 bytes)",
                  "materialize broadcast 5 (416 bytes)"));
}

TEST(MaterializeCollectives, AreNoneWithoutASourceOrASecondRank) {
  const GraphModule module = Mlp();
  const DeviceMesh four = Mesh({{"tp", 4}});
  const DeviceMesh one = Mesh({{"tp", 1}});

  EXPECT_TRUE(
      MaterializeCollectives(module, four, Pairwise(module, four), std::nullopt)
          .empty());
  EXPECT_TRUE(
      MaterializeCollectives(module, one, Pairwise(module, one), 0).empty());
}

TEST(MaterializeCollectives, LeaveOutAliasesAndWhatIsInitialisedInPlace) {
  Parameter weight;
  weight.fqn = "weight";
  weight.type.shape = {4};
  Parameter alias = weight;
  alias.fqn = "alias";
  alias.alias_of = "weight";
  Parameter zeros = weight;
  zeros.fqn = "zeros";
  zeros.initializer = Initializer{};
  const GraphModule module =
      GraphModule::Create({ModuleNode{}}, {weight, alias, zeros}).value();
  const DeviceMesh mesh = Mesh({{"tp", 2}});

  EXPECT_THAT(
      Texts(MaterializeCollectives(module, mesh, Plan(module, mesh, {}), 0)),
      ElementsAre("materialize broadcast 1 (16 bytes)"));
}

// 16 over 3 ranks is 6, 6, 4: net1 6 * 10 + 6, net2 10 * 6 + 10 elements.
TEST(BuildReport, CountsTheMemoryOfEachRank) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 3}});

  const Report report =
      BuildReport(module, mesh, Pairwise(module, mesh), 0, nullptr);

  EXPECT_THAT(Sizes(report),
              ElementsAre("544 544 0", "544 544 0", "376 376 0"));
  EXPECT_THAT(report.memory[2].optimizer_state,
              ElementsAre(OptimizerStateBytes{"SGD", 0},
                          OptimizerStateBytes{"SGD, momentum", 376},
                          OptimizerStateBytes{"Adam", 752},
                          OptimizerStateBytes{"Adam, amsgrad", 1128},
                          OptimizerStateBytes{"AdamW", 752},
                          OptimizerStateBytes{"AdamW, amsgrad", 1128}));
}

TEST(BuildReport, CountsBuffersAndFrozenParametersApart) {
  Parameter frozen;
  frozen.fqn = "frozen";
  frozen.type.shape = {8};
  frozen.requires_grad = false;
  Parameter buffer = frozen;
  buffer.fqn = "buffer";
  buffer.buffer = true;
  buffer.type = {DType::kInt64, {3}};
  const GraphModule module =
      GraphModule::Create({ModuleNode{}}, {frozen, buffer}).value();
  const DeviceMesh mesh = Mesh({{"tp", 1}});

  const Report report =
      BuildReport(module, mesh, Plan(module, mesh, {}), 0, nullptr);

  EXPECT_THAT(Sizes(report), ElementsAre("32 0 24"));
}

TEST(BuildReport, LeavesOutTheRanksOfAHugeMesh) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"dp", 1 << 10}, {"tp", 1 << 10}});

  EXPECT_EQ(BuildReport(module, mesh, Pairwise(module, mesh), 0, nullptr)
                .memory.size(),
            1024u);
}

// 16 hidden over 3 ranks are 6, 6 and 4. Without a loss nothing goes back.
TEST(BuildReport, CountsTheFlopsOfEachRank) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 3}});
  const ResolvedPlan plan = Pairwise(module, mesh);
  const Signature forward{.inputs = {{{DType::kFloat32, {8, 10}}, false, "x"}},
                          .loss = std::nullopt,
                          .targets = {}};
  const auto compiled = Compile(module, mesh, plan, forward, {});
  ASSERT_THAT(compiled, IsOk());

  const Report report = BuildReport(module, mesh, plan, 0, &*compiled);

  const int64_t one = 2 * 2 * 8 * 10;  // of each hidden unit
  EXPECT_THAT(report.flops, ElementsAre(RankFlops{0, {6 * one, 0}},
                                        RankFlops{1, {6 * one, 0}},
                                        RankFlops{2, {4 * one, 0}}));
  EXPECT_EQ(report.flops_per_rank, 6 * one);
}

TEST(BuildReport, SaysWhatEachModuleCommunicates) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const ResolvedPlan plan = Pairwise(module, mesh);
  const Signature signature{
      .inputs = {{{DType::kFloat32, {8, 10}}, true, "input"}},
      .loss = LossReduction::kSum,
      .targets = {}};
  const auto compiled = Compile(module, mesh, plan, signature, {});
  ASSERT_THAT(compiled, IsOk());

  const Report report = BuildReport(module, mesh, plan, 0, &*compiled);

  EXPECT_THAT(
      report.module_collectives,
      ElementsAre(ModuleCollective{"net2", "forward", "all_reduce", "tp", 1,
                                   320, "sum of a rowwise linear"},
                  ModuleCollective{"net1", "backward", "all_reduce", "tp", 1,
                                   320, "gradient of the input of net1"}));
}

TEST(CountCollectives, SumsByKindInAFixedOrder) {
  using Kind = RedistributeKind;
  const std::vector<CollectiveRecord> records = {
      {Kind::kReduceScatter, 0, DType::kFloat32, 32, 8},
      {Kind::kAllReduce, 0, DType::kFloat64, 10, 10},
      {Kind::kAllGather, 0, DType::kFloat32, 8, 32},
      {Kind::kAllReduce, 1, DType::kFloat32, 10, 10}};

  EXPECT_THAT(Texts(CountCollectives("backward", records)),
              ElementsAre("backward all_gather 1 (128 bytes)",
                          "backward all_reduce 2 (120 bytes)",
                          "backward reduce_scatter 1 (128 bytes)"));
}

// The MLP of PyTorch's tests: one all-reduce of f32[8, 10].
TEST(BuildReport, ShowsTheProgram) {
  const GraphModule module = Mlp();
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const ResolvedPlan plan = Pairwise(module, mesh);
  const Signature signature{
      .inputs = {{{DType::kFloat32, {8, 10}}, false, "input"}},
      .loss = LossReduction::kSum,
      .targets = {}};
  const auto compiled = Compile(module, mesh, plan, signature, {});
  ASSERT_THAT(compiled, IsOk());

  const Report report =
      BuildReport(module, mesh, plan, std::nullopt, &*compiled);

  EXPECT_THAT(Texts(report.collectives),
              ElementsAre("forward all_reduce 1 (320 bytes)"));
  EXPECT_THAT(report.program_text, HasSubstr("all_reduce"));
  // net1 is 8 x 10 x 4 multiply-adds, net2 8 x 4 x 10; backward both gradients
  // of net2, and that of net1's weight alone.
  const int64_t one = 2 * 8 * 10 * 4;
  EXPECT_EQ(report.flops[3], (RankFlops{3, {2 * one, 3 * one}}));
  EXPECT_EQ(report.flops_per_rank, 5 * one);
  ASSERT_EQ(report.memory.size(), 4u);
  EXPECT_EQ(report.memory[0].parameter_bytes, 376);
  EXPECT_EQ(report.memory[0].gradient_bytes, 376);
  // At least the input, the hidden part f32[8, 4] and the output.
  EXPECT_GE(report.memory[0].peak_activation_bytes, 320 + 128 + 320);
}

}  // namespace
}  // namespace shardplane
