#include "common/data_parallel.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/compile_fixture.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

constexpr auto kReplicate = DataParallelKind::kReplicate;
constexpr auto kFullyShard = DataParallelKind::kFullyShard;

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return *DeviceMesh::Create(std::move(dims));
}

// An MLP of PyTorch's, 10 -> 16 -> 10, cut over tp as it mostly is.
Request MlpOn(std::vector<MeshDim> mesh, std::vector<DataParallel> items) {
  Request request{Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  request.mesh = std::move(mesh);
  request.data_parallel = std::move(items);
  return request;
}

TEST(DataParallelTest, CutsParametersInsideOfThePlansCuts) {
  const DataParallelDims dims = {kFullyShard, std::nullopt};
  const TensorType matrix{DType::kFloat32, {8, 4}};
  const auto stored = [&](const Placement& tp) {
    return ToString(FullySharded({{Replicate{}, tp}, {}}, matrix, dims));
  };
  EXPECT_EQ(stored(Replicate{}), "[S(0), R]");
  EXPECT_EQ(stored(Shard{1}), "[S(0), S(1)]");
  EXPECT_EQ(stored(Shard{0}), "[S(0)#2, S(0)#1]");
  EXPECT_EQ(ToString(FullySharded(DTensorSpec::Replicated(2),
                                  {DType::kFloat32, {}}, dims)),
            "[R, R]");
}

TEST(DataParallelTest, CutsParametersOnTheDimThatIsAskedFor) {
  const auto compiled = Compile(
      MlpOn({{"dp", 2}, {"tp", 2}},
            {{"dp", kFullyShard, {{"net1.weight", 1}, {"net2.weight", -1}}}}));
  const std::string steps = Steps(compiled);
  EXPECT_EQ(Specs(compiled),
            "net1.weight [S(1), S(0)] [S(1), S(0)]; "
            "net1.bias [S(0)#2, S(0)#1] [S(0)#2, S(0)#1]; "
            "net2.weight [S(1)#2, S(1)#1] [S(1)#2, S(1)#1]; "
            "net2.bias [S(0), R] [S(0), R]");
  EXPECT_EQ(Count(steps, "= all_gather[dp, from 1 0 1 0]"), 1) << steps;
  EXPECT_EQ(Count(steps, "= reduce_scatter[dp, to 0 1 0 1, sum]"), 1) << steps;
}

TEST(DataParallelTest, DimsThatMeanNothingAreRefused) {
  const auto refusal = [](DataParallelKind kind,
                          absl::btree_map<std::string, int> shard_dims) {
    Request request =
        MlpOn({{"dp", 2}, {"tp", 2}}, {{"dp", kind, std::move(shard_dims)}});
    const absl::Status status = Compile(request).status();
    const auto info = GetErrorInfo(status);
    return absl::StrCat(info.has_value() ? info->reason : "", ": ",
                        status.message());
  };
  EXPECT_EQ(refusal(kReplicate, {{"net1.weight", 1}}),
            "SHARD_DIM: shard_dims of \"net1.weight\": mesh dim \"dp\" keeps "
            "parameters whole");
  EXPECT_EQ(refusal(kFullyShard, {{"net1", 1}}),
            "UNKNOWN_PARAMETER: shard_dims of \"net1\": no such parameter");
  EXPECT_EQ(refusal(kFullyShard, {{"net1.bias", 1}}),
            "SHARD_DIM: shard_dims of \"net1.bias\": f64[16] has 1 dims; got: "
            "1");
}

// All names of one tensor are cut alike.
TEST(DataParallelTest, TiedParametersHaveOneDim) {
  const std::vector<ModuleNode> modules = {{.fqn = "", .type = "Root"}};
  const TensorType type{DType::kFloat32, {4, 4}};
  const auto module = GraphModule::Create(
      modules, {{.fqn = "a", .type = type},
                {.fqn = "b", .type = type, .alias_of = "a"}});
  ASSERT_TRUE(module.ok()) << module.status();
  const DeviceMesh mesh = Mesh({{"tp", 2}, {"dp", 2}});
  const auto dims = [&](absl::btree_map<std::string, int> shard_dims) {
    return ResolveShardDims(*module, mesh,
                            {{"dp", kFullyShard, std::move(shard_dims)}});
  };
  EXPECT_EQ(*dims({{"b", 1}}), (ShardDims{{0, 1}, {0, 1}}));
  EXPECT_EQ(*dims({{"a", 1}, {"b", -1}}), (ShardDims{{0, 1}, {0, 1}}));
  EXPECT_EQ(*dims({}), ShardDims{});
  EXPECT_EQ(dims({{"a", 1}, {"b", 0}}).status().message(),
            "shard_dims of \"b\": the same tensor is cut on dim 1; got: 0");
}

TEST(DataParallelTest, ReplicatedItIsOneAllReduceOfAllGradients) {
  const auto compiled =
      Compile(MlpOn({{"dp", 2}, {"tp", 2}}, {{"dp", kReplicate}}));
  const std::string steps = Steps(compiled);
  EXPECT_EQ(ToString(compiled->program.values[0].spec), "[S(0), R]") << steps;
  EXPECT_EQ(Count(steps, "= all_reduce[tp"), 1) << steps;
  EXPECT_EQ(Count(steps, "all_reduce[dp"), 1) << steps;  // gradients
  EXPECT_EQ(Count(steps, "gather"), 0) << steps;
  EXPECT_EQ(Specs(compiled),
            "net1.weight [R, S(0)] [R, S(0)]; net1.bias [R, S(0)] [R, S(0)]; "
            "net2.weight [R, S(1)] [R, S(1)]; net2.bias [R, R] [R, R]");
}

TEST(DataParallelTest, FullyShardedGathersWeightsAndScattersGradients) {
  const auto compiled =
      Compile(MlpOn({{"dp", 2}, {"tp", 2}}, {{"dp", kFullyShard}}));
  const std::string steps = Steps(compiled);
  EXPECT_EQ(Count(steps, "= all_gather[dp, from 0 0 0 0]"), 1) << steps;
  EXPECT_EQ(Count(steps, "= reduce_scatter[dp, to 0 0 0 0, sum]"), 1) << steps;
  EXPECT_EQ(Count(steps, "= all_reduce[tp"), 1) << steps;
  EXPECT_EQ(Count(steps, "= all_reduce[dp"), 0) << steps;
  EXPECT_EQ(Specs(compiled),
            "net1.weight [S(0)#2, S(0)#1] [S(0)#2, S(0)#1]; "
            "net1.bias [S(0)#2, S(0)#1] [S(0)#2, S(0)#1]; "
            "net2.weight [S(0), S(1)] [S(0), S(1)]; "
            "net2.bias [S(0), R] [S(0), R]");
}

// Replicated over one mesh dim and cut over another: the reduce-scattered
// gradients are summed once more.
TEST(DataParallelTest, HybridReducesWhatIsScattered) {
  const auto compiled =
      Compile(MlpOn({{"replicas", 2}, {"shards", 2}, {"tp", 2}},
                    {{"replicas", kReplicate}, {"shards", kFullyShard}}));
  const std::string steps = Steps(compiled);
  EXPECT_EQ(ToString(compiled->program.values[0].spec), "[S(0), S(0), R]");
  EXPECT_EQ(Count(steps, "= all_gather[shards"), 1) << steps;
  EXPECT_EQ(Count(steps, "= reduce_scatter[shards"), 1) << steps;
  EXPECT_EQ(Count(steps, "all_reduce[replicas, sum]"), 1) << steps;
  EXPECT_EQ(Count(steps, "all_reduce[shards"), 0) << steps;
}

TEST(DataParallelTest, CutOverTwoMeshDimsItIsScatteredOverBoth) {
  Request request =
      MlpOn({{"a", 2}, {"b", 2}}, {{"a", kFullyShard}, {"b", kFullyShard}});
  request.plan.clear();
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  for (const char* mesh_dim : {"a", "b"}) {
    EXPECT_EQ(Count(steps, absl::StrCat("= all_gather[", mesh_dim)), 1);
    EXPECT_EQ(Count(steps, absl::StrCat("= reduce_scatter[", mesh_dim)), 1);
  }
  EXPECT_EQ(Count(steps, "all_reduce"), 0) << steps;
}

TEST(DataParallelTest, ThePlansMeshDimIsTheOneThatIsLeft) {
  const auto plan_dim = [](std::vector<MeshDim> mesh,
                           std::vector<DataParallel> items) {
    const auto plan = ResolvePlan(Mlp(), Mesh(std::move(mesh)),
                                  ParallelizePlan{{Entry("net1", Colwise())}},
                                  {.data_parallel = std::move(items)});
    return plan.ok() ? plan->mesh_dim : -1;
  };
  EXPECT_EQ(plan_dim({{"a", 2}, {"b", 2}}, {{"a", kReplicate}}), 1);
  EXPECT_EQ(plan_dim({{"a", 2}, {"b", 2}}, {{"b", kFullyShard}}), 0);
  EXPECT_EQ(plan_dim({{"a", 2}, {"b", 2}}, {}), -1);
}

// A plan without styles needs none.
TEST(DataParallelTest, MayBeAllThereIs) {
  Request request = MlpOn({{"dp", 4}}, {{"dp", kFullyShard}});
  request.plan.clear();
  const auto compiled = Compile(request);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  EXPECT_EQ(Count(Steps(compiled), "= reduce_scatter[dp"), 1);
}

// Two layers of 128 KB each: what one needs is gathered before it runs, and its
// gradients are scattered before the backward pass of the one before.
TEST(DataParallelTest, UnitsGatherAndScatterByThemselves) {
  const GraphModule module = *GraphModule::Create(
      {Mod("", "Sequential"), Mod("a", "Sequential"), Mod("a.up", "Linear"),
       Mod("a.down", "Linear"), Mod("b", "Sequential"), Mod("b.up", "Linear"),
       Mod("b.down", "Linear")},
      {Param("a.up.weight", {128, 64}), Param("a.down.weight", {64, 128}),
       Param("b.up.weight", {128, 64}), Param("b.down.weight", {64, 128})});
  Request request{module, {}};
  request.mesh = {{"dp", 2}};
  request.data_parallel = {{"dp", kFullyShard}};
  request.input = {4, 64};
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_EQ(Count(steps, "= all_gather[dp, from 0 0]"), 2) << steps;
  EXPECT_EQ(Count(steps, "= reduce_scatter[dp, to 0 0, sum]"), 2) << steps;
  EXPECT_LT(steps.find("segment 0"), steps.rfind("all_gather")) << steps;
  EXPECT_LT(steps.find("reduce_scatter"), steps.find("backward of 0")) << steps;
}

// Gradients are all-reduced as soon as there are 25 MB of them.
TEST(DataParallelTest, ReplicasReduceFullBuckets) {
  Request request{
      *GraphModule::Create(
          {Mod("", "Sequential"), Mod("a", "Linear"), Mod("b", "Linear"),
           Mod("c", "Linear")},
          {Param("a.weight", {2048, 1024}), Param("b.weight", {1024, 2048}),
           Param("c.weight", {8, 1024})}),
      {}};
  request.mesh = {{"dp", 2}};
  request.data_parallel = {{"dp", kReplicate}};
  request.input = {4, 1024};
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  // b and c are 16 MB and a little: a, another 16, fills it.
  EXPECT_EQ(Count(steps, "= all_reduce[dp"), 1) << steps;
  request.module = *GraphModule::Create(
      {Mod("", "Sequential"), Mod("a", "Linear"), Mod("b", "Linear"),
       Mod("c", "Linear")},
      {Param("a.weight", {2048, 1024}), Param("b.weight", {2048, 2048}),
       Param("c.weight", {8, 2048})});
  const std::string more = Steps(Compile(request));
  EXPECT_EQ(Count(more, "= all_reduce[dp"), 2) << more;
  EXPECT_LT(more.find("all_reduce"), more.find("backward of 0")) << more;
}

struct RefusedCase {
  const char* name;
  std::vector<DataParallel> items;
  const char* reason;
  const char* message;
};

class Refused : public testing::TestWithParam<RefusedCase> {};

TEST_P(Refused, NamesTheMeshDim) {
  const RefusedCase& c = GetParam();
  const absl::Status status =
      Compile(MlpOn({{"dp", 2}, {"tp", 2}}, c.items)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorInfo(status)->reason, c.reason);
  EXPECT_THAT(status.message(), HasSubstr(c.message));
}

INSTANTIATE_TEST_SUITE_P(
    MeshDims, Refused,
    testing::Values(
        RefusedCase{"unknown",
                    {{"pp", kReplicate}},
                    "UNKNOWN_MESH_DIM",
                    "must name dims of mesh [dp=2, tp=2]; got: \"pp\""},
        RefusedCase{"twice",
                    {{"dp", kReplicate}, {"dp", kFullyShard}},
                    "DATA_PARALLEL_TWICE",
                    "names a mesh dim once; got: \"dp\""},
        RefusedCase{"of_a_style",
                    {{"dp", kReplicate}, {"tp", kReplicate}},
                    "DATA_PARALLEL_MESH_DIM",
                    "needs a mesh dim that is not data parallel; got: "
                    "\"dp\""}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace shardplane
