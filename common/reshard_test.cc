#include "common/reshard.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr ValueId kX = 4;
constexpr ValueId kLoss = 6;

// Two layers of one weight each, %0 and %2, which are gathered as %1 and %3
// before a layer runs: `first` is the op of the first.
ShardedProgram TwoLayers(const std::string& first, int ranks = 2) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"dp", ranks}});
  const TensorType type{DType::kFloat32, {4, 4}};
  for (int i = 0; i < 12; ++i) {
    const bool stored = i == 0 || i == 2;
    program.values.push_back(
        {"",
         i == kLoss ? TensorType{DType::kFloat32, {}} : type,
         {{stored ? Placement(Shard{0}) : Placement(Replicate{})}, {}}});
  }
  program.parameters = {{.fqn = "a", .value = 0}, {.fqn = "b", .value = 2}};
  program.inputs = {{.value = kX}};
  program.segments = {{.inputs = {kX, 1},
                       .outputs = {5},
                       .ops = {{.target = first,
                                .args = {{ValueRef{1}}, {ValueRef{kX}}},
                                .results = {5}}},
                       .differentiable_inputs = {1},
                       .differentiable_outputs = {5}},
                      {.inputs = {5, 3},
                       .outputs = {kLoss},
                       .ops = {{.target = "aten.dot.default",
                                .args = {{ValueRef{5}}, {ValueRef{3}}},
                                .results = {kLoss}}},
                       .differentiable_inputs = {5, 3},
                       .differentiable_outputs = {kLoss}}};
  const auto gather = [](ValueId from, ValueId to) {
    return Redistribute{.kind = RedistributeKind::kAllGather,
                        .from_dim = 0,
                        .input = from,
                        .output = to};
  };
  program.instructions = {gather(0, 1),
                          RunSegment{0},
                          gather(2, 3),
                          RunSegment{1},
                          Ones{7},
                          RunSegmentBackward{1, {7}, {8, 9}},
                          RunSegmentBackward{0, {8}, {10}}};
  program.backward_begin = 4;
  program.loss = kLoss;
  return program;
}

std::string Resharded(ShardedProgram program, bool fully_sharded = true) {
  ReshardAfterForward({.parameters = {fully_sharded}}, &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  return ToString(program);
}

// The last layer's weight is the first that the backward needs: it stays.
TEST(ReshardTest, GathersWeightsAgainForTheirBackward) {
  const std::string text = Resharded(TwoLayers("aten.mm.default"));
  const size_t gone = text.find("reshard %1\n");
  const size_t next = text.find("%3 = all_gather");
  const size_t again = text.find("%1 = all_gather[dp, from 0, again] %0");
  ASSERT_NE(again, std::string::npos) << text;
  EXPECT_LT(text.find("segment 0"), gone) << text;
  EXPECT_LT(gone, next) << text;
  EXPECT_LT(text.find("backward of 1"), again) << text;
  EXPECT_LT(again, text.find("backward of 0")) << text;
  EXPECT_THAT(text, Not(HasSubstr("reshard %3")));
}

// What comes out of the layer may lie in the weight's memory, or nobody knows.
TEST(ReshardTest, WeightsStayThatOthersMayLieIn) {
  for (const char* op :
       {"aten.view.default", "aten.to.dtype", "aten.mystery.default"}) {
    EXPECT_THAT(Resharded(TwoLayers(op)), Not(HasSubstr("reshard"))) << op;
  }
}

TEST(ReshardTest, OtherMeshDimsAreLeftAlone) {
  const ShardedProgram program = TwoLayers("aten.mm.default");
  EXPECT_EQ(Resharded(program, false), ToString(program));
}

TEST(ReshardTest, OneRankHasAll) {
  const ShardedProgram program = TwoLayers("aten.mm.default", 1);
  EXPECT_EQ(Resharded(program), ToString(program));
}

TEST(ReshardTest, AProgramWithoutBackwardStays) {
  ShardedProgram program = TwoLayers("aten.mm.default");
  program.instructions.resize(4);
  program.loss = -1;
  EXPECT_EQ(Resharded(program), ToString(program));
}

// A weight that the last layer uses, too, is needed until the backward begins.
TEST(ReshardTest, TiedWeightsStay) {
  ShardedProgram program = TwoLayers("aten.mm.default");
  program.segments[1].inputs.push_back(1);
  EXPECT_THAT(Resharded(program), Not(HasSubstr("reshard")));
}

// An alias uses it, and has its memory.
TEST(ReshardTest, AliasesCountAsUses) {
  ShardedProgram program = TwoLayers("aten.mm.default");
  program.instructions.insert(
      program.instructions.begin() + 1,
      Redistribute{.kind = RedistributeKind::kAlias, .input = 1, .output = 11});
  ++program.backward_begin;
  program.segments[0].ops[0].args[0] = {ValueRef{11}};
  program.segments[0].inputs = {kX, 11};
  program.segments[0].differentiable_inputs = {11};
  const std::string text = Resharded(program);
  EXPECT_LT(text.find("segment 0"), text.find("reshard %1\n")) << text;
  EXPECT_LT(text.find("%1 = all_gather[dp, from 0, again] %0"),
            text.find("backward of 0"))
      << text;
}

// Cut along two mesh dims, it is gathered along one after the other, and so it
// is again.
TEST(ReshardTest, TwoMeshDimsAreGatheredInTheirOrder) {
  ShardedProgram program = TwoLayers("aten.mm.default");
  program.mesh = *DeviceMesh::Create({{"a", 2}, {"b", 2}});
  for (Value& value : program.values) {
    value.spec = DTensorSpec::Replicated(2);
  }
  program.values[0].spec = {{Shard{0}, Shard{0}}, {}};
  program.values[11].spec = {{Shard{0}, Replicate{}}, {}};
  program.values[2].spec = {{Shard{0}, Replicate{}}, {}};
  program.instructions[0] = Redistribute{.kind = RedistributeKind::kAllGather,
                                         .mesh_dim = 1,
                                         .from_dim = 0,
                                         .input = 0,
                                         .output = 11};
  program.instructions.insert(program.instructions.begin() + 1,
                              Redistribute{.kind = RedistributeKind::kAllGather,
                                           .mesh_dim = 0,
                                           .from_dim = 0,
                                           .input = 11,
                                           .output = 1});
  ++program.backward_begin;
  ReshardAfterForward({.parameters = {true, true}}, &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  const std::string text = ToString(program);
  const size_t inner = text.find("%11 = all_gather[b, from 0, again] %0");
  const size_t outer = text.find("%1 = all_gather[a, from 0, again] %11");
  ASSERT_NE(outer, std::string::npos) << text;
  EXPECT_LT(inner, outer) << text;
}

}  // namespace
}  // namespace shardplane
