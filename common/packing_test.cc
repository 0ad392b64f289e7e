#include "common/packing.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/compile_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kHead = 4;
constexpr int64_t kWidth = 12;

Argument Ints(const std::vector<int64_t>& values) {
  ArgumentList list;
  for (const int64_t value : values) list.push_back({value});
  return {std::move(list)};
}

// x [2, 5, 12] -> qkv, which is split into queries, keys and values -> grouped
// attention -> wo.
Request FusedAttention(int64_t heads, int64_t keys, int ranks) {
  const int64_t inner = heads * kHead;
  const int64_t fused = inner + 2 * keys * kHead;
  std::vector<Node> nodes = {Placeholder("x"), Call("y", "qkv", {Ref("x")}),
                             Call("parts", "aten.split_with_sizes.default",
                                  {Ref("y"),
                                   Ints({inner, keys * kHead, keys * kHead}),
                                   {int64_t{-1}}})};
  const std::vector<std::string> names = {"q", "k", "v"};
  for (int i = 0; i < 3; ++i) {
    const std::string& name = names[i];
    nodes.push_back(Call(name, "getitem", {Ref("parts"), {int64_t{i}}}));
    nodes.push_back(
        Call(name + "_heads", "aten.view.default",
             {Ref(name), Ints({2, 5, i == 0 ? heads : keys, kHead})}));
    nodes.push_back(Call(name + "_first", "aten.transpose.int",
                         {Ref(name + "_heads"), {int64_t{1}}, {int64_t{2}}}));
  }
  nodes.push_back(Call("o", "aten.scaled_dot_product_attention.default",
                       {Ref("q_first"), Ref("k_first"), Ref("v_first")}));
  nodes.back().kwargs["enable_gqa"] = {true};
  nodes.push_back(Call("o_last", "aten.transpose.int",
                       {Ref("o"), {int64_t{1}}, {int64_t{2}}}));
  nodes.push_back(Call("merged", "aten.reshape.default",
                       {Ref("o_last"), Ints({2, 5, inner})}));
  nodes.push_back(Call("out", "wo", {Ref("merged")}));
  nodes.push_back(Output(Ref("out")));
  Request request{
      *GraphModule::Create(
          {Root(std::move(nodes)), Mod("qkv", "Linear"), Mod("wo", "Linear")},
          {Param("qkv.weight", {fused, kWidth}),
           Param("wo.weight", {kWidth, inner})}),
      {Entry("qkv", Colwise()), Entry("wo", Rowwise())}};
  request.input = {2, 5, kWidth};
  request.mesh = {{"tp", ranks}};
  return request;
}

// "all_reduce 1": what the forward pass runs.
std::string Moves(const CompiledProgram& compiled) {
  std::vector<std::string> moves;
  const ShardedProgram& program = compiled.program;
  for (const CollectiveRecord& record :
       Collectives(program, Phase::kForward, program.mesh.Coordinate(0))) {
    moves.push_back(ToString(record.kind));
  }
  return absl::StrJoin(moves, " ");
}

struct HeadsCase {
  std::string name;
  int64_t heads = 8;
  int64_t keys = 8;
  int ranks = 4;
  std::string fused;  // of qkv.weight
  std::string rows;   // of wo.weight
};

class PackedHeads : public testing::TestWithParam<HeadsCase> {};

TEST_P(PackedHeads, LeaveOneSumForward) {
  const HeadsCase& c = GetParam();
  const Request request = FusedAttention(c.heads, c.keys, c.ranks);
  ResolvedPlan plan;
  const auto compiled = CompileAndPack(request, &plan);
  ASSERT_THAT(compiled, IsOk());

  EXPECT_EQ(ToString(plan.parameter_specs[0]), c.fused);
  EXPECT_EQ(ToString(plan.parameter_specs[1]), c.rows);
  EXPECT_EQ(plan.wanted_specs, plan.parameter_specs);
  EXPECT_EQ(Moves(*compiled), "all_reduce");
  EXPECT_THAT(Validate(compiled->program), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    All, PackedHeads,
    testing::Values(
        HeadsCase{"even", 8, 8, 4, "[S(0: 32, 32, 32)]", "[S(1)]"},
        HeadsCase{"uneven", 6, 6, 4, "[S(0: 3*8, 3*8, 3*8)]", "[S(1: 3*8)]"},
        HeadsCase{"grouped", 8, 4, 4, "[S(0: 32, 16, 16)]", "[S(1)]"},
        HeadsCase{"two_keys", 8, 2, 4, "[S(0: 32, 2*4/2, 2*4/2)]", "[S(1)]"},
        HeadsCase{"one_key", 8, 1, 4, "[S(0: 32, 1*4/4, 1*4/4)]", "[S(1)]"},
        // Nothing to share keys for: two ranks have none.
        HeadsCase{"few", 2, 2, 4, "[S(0: 2*4, 2*4, 2*4)]", "[S(1: 2*4)]"}),
    [](const auto& info) { return info.param.name; });

TEST(PackedHeads, HaveANoteEach) {
  ResolvedPlan plan;
  ASSERT_THAT(CompileAndPack(FusedAttention(8, 2, 4), &plan), IsOk());

  ASSERT_EQ(plan.diagnostics.size(), 1);
  EXPECT_EQ(plan.diagnostics[0].reason, "PACKED");
  EXPECT_EQ(plan.diagnostics[0].message,
            "\"qkv.weight\" is cut as [S(0: 32, 2*4/2, 2*4/2)]: so the program "
            "takes it apart");
  EXPECT_EQ(plan.diagnostics[0].fqn, "qkv");
}

// Gradients of what groups share are reduced, those of their own are not.
TEST(PackedHeads, GradientsOfSharedKeysAreReduced) {
  ResolvedPlan plan;
  const auto shared = CompileAndPack(FusedAttention(8, 2, 4), &plan);
  const auto own = CompileAndPack(FusedAttention(8, 8, 4), &plan);
  const auto records = [](const CompiledProgram& compiled) {
    return Collectives(compiled.program, Phase::kBackward,
                       compiled.program.mesh.Coordinate(0));
  };

  // Keys and values of both heads: 2 * 8 rows of 12.
  EXPECT_THAT(records(*shared),
              ElementsAre(CollectiveRecord{RedistributeKind::kAllReduce, 0,
                                           DType::kFloat64, 192, 192}));
  EXPECT_THAT(records(*own), IsEmpty());
}

TEST(Packing, OfWhatNothingTakesApartThereIsNone) {
  ResolvedPlan plan;
  Request request{Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  const auto compiled = CompileAndPack(request, &plan);
  ASSERT_THAT(compiled, IsOk());

  EXPECT_THAT(compiled->packings, IsEmpty());
  EXPECT_EQ(ToString(plan.parameter_specs[0]), "[S(0)]");
}

// Two activations multiplied, with no heads: what is whole for that is no key
// that queries share, and stays cut.
TEST(Packing, WeightsWithoutHeadsAreNotShared) {
  Request request{
      *GraphModule::Create(
          {Root({Placeholder("x"), Call("y", "lin", {Ref("x")}),
                 Call("t", "aten.transpose.int",
                      {Ref("y"), {int64_t{1}}, {int64_t{2}}}),
                 Call("scores", "aten.matmul.default", {Ref("y"), Ref("t")}),
                 Call("soft", "aten.softmax.int",
                      {Ref("scores"), {int64_t{-1}}}),
                 Output(Ref("soft"))}),
           Mod("lin", "Linear")},
          {Param("lin.weight", {4, kWidth})}),
      {Entry("lin", Colwise())}};
  request.input = {2, 5, kWidth};
  ResolvedPlan plan;
  ASSERT_THAT(CompileAndPack(request, &plan), IsOk());

  EXPECT_EQ(ToString(plan.parameter_specs[0]), "[S(0)]");
}

// The plan says where the parts are, the program which of them are shared.
TEST(Packing, RefinesBlocksThatAreGiven) {
  Request request = FusedAttention(8, 2, 4);
  request.plan[0] =
      Entry("qkv", {ColwiseParallel{Replicate{}, Shard{-1}, {32, 8, 8}}, ""});
  ResolvedPlan plan;
  ASSERT_THAT(CompileAndPack(request, &plan), IsOk());
  EXPECT_EQ(ToString(plan.parameter_specs[0]), "[S(0: 32, 2*4/2, 2*4/2)]");

  request.mesh = {{"tp", 2}};
  ASSERT_THAT(CompileAndPack(request, &plan), IsOk());
  EXPECT_EQ(ToString(plan.parameter_specs[0]), "[S(0: 32, 8, 8)]");
  EXPECT_THAT(plan.diagnostics, IsEmpty());
}

TEST(Packing, BlocksMustBeAllOfTheDim) {
  Request request = FusedAttention(8, 2, 4);
  request.plan[0] =
      Entry("qkv", {ColwiseParallel{Replicate{}, Shard{-1}, {32, 8}}, ""});
  ResolvedPlan plan;
  EXPECT_THAT(CompileAndPack(request, &plan),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::HasSubstr("has blocks of 48 elements together; "
                                          "got: 32+8 = 40")));
}

// Parameters are stored in parts of what the plan leaves of them: all gathered
// before the forward pass, or each layer by itself, through a bucket.
TEST(Packing, FullyShardedWithin) {
  Request request = FusedAttention(8, 2, 2);
  request.mesh = {{"dp", 2}, {"tp", 4}};
  request.data_parallel = {{"dp", DataParallelKind::kFullyShard}};
  std::vector<Parameter> parameters = request.module.parameters();
  parameters.push_back(Param("qkv.bias", {48}));
  request.module = *GraphModule::Create(request.module.modules(), parameters);
  for (const int64_t unit_bytes : {kDefaultUnitBytes, int64_t{0}}) {
    request.unit_bytes = unit_bytes;
    ResolvedPlan plan;
    const auto compiled = CompileAndPack(request, &plan);
    ASSERT_THAT(compiled, IsOk());

    EXPECT_EQ(ToString(plan.parameter_specs[0]),
              "[S(0)#2, S(0: 32, 2*4/2, 2*4/2)#1]");
    EXPECT_EQ(ToString(plan.wanted_specs[0]), "[R, S(0: 32, 2*4/2, 2*4/2)]");
    EXPECT_THAT(Validate(compiled->program), IsOk());
  }
}

}  // namespace
}  // namespace shardplane
