#include "common/weight_products.h"

#include <utility>
#include <vector>

#include "common/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr ValueId kX = 0;
constexpr ValueId kUp = 1;
constexpr ValueId kDown = 2;
constexpr ValueId kHidden = 3;
constexpr ValueId kY = 4;
constexpr ValueId kUpGradient = 6;
constexpr ValueId kDownGradient = 7;

// y = down(up(x)) on [tp=2] without a loss's own operators: x f32[rows, 64],
// up f32[128, 64] cut S(0), down f32[64, 128] cut S(1). A rank has 64 x 64
// elements of each weight.
ShardedProgram TwoLinears(int64_t rows) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  const Placement r = Replicate{};
  for (const auto& [shape, placement] :
       std::vector<std::pair<Shape, Placement>>{{{rows, 64}, r},
                                                {{128, 64}, Shard{0}},
                                                {{64, 128}, Shard{1}},
                                                {{rows, 128}, Shard{1}},
                                                {{rows, 64}, Partial{}},
                                                {{rows, 64}, r},
                                                {{128, 64}, Shard{0}},
                                                {{64, 128}, Shard{1}}}) {
    program.values.push_back({"", {DType::kFloat32, shape}, {{placement}, {}}});
  }
  program.segments = {
      {.inputs = {kX, kUp, kDown},
       .outputs = {kY},
       .ops = {{.target = "aten.linear.default",
                .args = {{ValueRef{kX}}, {ValueRef{kUp}}},
                .results = {kHidden}},
               {.target = "aten.linear.default",
                .args = {{ValueRef{kHidden}}, {ValueRef{kDown}}},
                .results = {kY}}},
       .differentiable_inputs = {kUp, kDown},
       .differentiable_outputs = {kY}}};
  program.parameters = {
      {.fqn = "up", .value = kUp, .gradient = kUpGradient},
      {.fqn = "down", .value = kDown, .gradient = kDownGradient}};
  program.inputs = {{.value = kX}};
  program.instructions = {
      RunSegment{0}, RunSegmentBackward{0, {5}, {kUpGradient, kDownGradient}}};
  program.backward_begin = 1;
  return program;
}

std::vector<WeightProductRow> Rows(const ShardedProgram& program,
                                   int64_t min_bytes = 64 * 64 * 4) {
  return FindWeightProducts(program, {0}, min_bytes);
}

constexpr WeightProductRow kUpRow{0, kUp, kUpGradient};
constexpr WeightProductRow kDownRow{0, kDown, kDownGradient};

TEST(WeightProductsTest, OfWeightsThatAreLargerThanTheirFactors) {
  // 16 * (64 + 64) elements are half of 64 * 64.
  EXPECT_THAT(Rows(TwoLinears(16)), ElementsAre(kUpRow, kDownRow));
  EXPECT_THAT(Rows(TwoLinears(17)), IsEmpty());
}

TEST(WeightProductsTest, SmallOnesAreMade) {
  EXPECT_THAT(Rows(TwoLinears(16), 64 * 64 * 4 + 1), IsEmpty());
}

TEST(WeightProductsTest, AlsoThoseThatComeLate) {
  ShardedProgram program = TwoLinears(4);
  program.instructions[1] = RunSegmentBackward{0, {5}, {-1, kDownGradient}};
  program.instructions.push_back(RunWeightGradients{0, {kUp}, {kUpGradient}});
  EXPECT_THAT(Rows(program), ElementsAre(kDownRow, kUpRow));
}

TEST(WeightProductsTest, WhatIsReducedOrSummedIsMade) {
  ShardedProgram program = TwoLinears(4);
  program.values.push_back(program.values[kUpGradient]);
  program.instructions.push_back(Accumulate{{kUpGradient}, 8});
  EXPECT_THAT(Rows(program), ElementsAre(kDownRow));
  program.parameters[0].gradient = 8;
  EXPECT_THAT(Rows(program), ElementsAre(kDownRow));
}

TEST(WeightProductsTest, WeightsThatSeveralOpsReadHaveSums) {
  ShardedProgram program = TwoLinears(4);
  program.segments[0].ops[0].args[1] = {ValueRef{kDown}};
  EXPECT_THAT(Rows(program), IsEmpty());
}

TEST(WeightProductsTest, AnotherOpsWeightIsNoProduct) {
  ShardedProgram program = TwoLinears(4);
  program.segments[0].ops[1].target = "aten.matmul.default";
  EXPECT_THAT(Rows(program), ElementsAre(kUpRow));
}

TEST(WeightProductsTest, OnlyTypesWhoseUpdateRoundsOnceAnyway) {
  for (const auto& [dtype, found] : std::vector<std::pair<DType, bool>>{
           {DType::kFloat64, true}, {DType::kBFloat16, false}}) {
    ShardedProgram program = TwoLinears(4);
    for (Value& value : program.values) value.type.dtype = dtype;
    EXPECT_EQ(!Rows(program, 1).empty(), found);
  }
}

TEST(WeightProductsTest, ReshardedActivationsLoseTheirMemory) {
  ShardedProgram program = TwoLinears(4);
  program.instructions.push_back(Reshard{.values = {kHidden}});
  EXPECT_THAT(Rows(program), IsEmpty());
}

}  // namespace
}  // namespace shardplane
