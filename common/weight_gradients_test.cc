#include "common/weight_gradients.h"

#include <string>
#include <utility>
#include <vector>

#include "common/overlap.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

constexpr ValueId kX = 0;
constexpr ValueId kFirstWeight = 1;
constexpr ValueId kSecondWeight = 2;
constexpr ValueId kLoss = 6;
constexpr LinkCosts kCosts = {.latency_us = 1, .us_per_mib = 1e6};

Op Linear(ValueId x, ValueId weight, ValueId y) {
  return {.target = "aten.linear.default",
          .args = {{ValueRef{x}}, {ValueRef{weight}}},
          .results = {y}};
}

// %3 = linear(%0, %1), %4 = `between`(%3), %5 = linear(%4, %2), whose sum is
// the loss. The gradient of %0, %9, is reduced to %12.
ShardedProgram TwoProducts(const std::string& between = "aten.relu.default") {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  for (int i = 0; i < 14; ++i) {
    const bool scalar = i == kLoss || i == 7;
    const bool partial = i == 9;
    program.values.push_back(
        {"",
         {DType::kFloat32, scalar ? Shape{} : Shape{64, 64}},
         {{partial ? Placement(Partial{}) : Placement(Replicate{})}, {}}});
  }
  program.parameters = {{.fqn = "a", .value = kFirstWeight, .gradient = 10},
                        {.fqn = "b", .value = kSecondWeight, .gradient = 11}};
  program.inputs = {{.value = kX, .gradient = 12}};
  program.segments = {
      {.inputs = {kX, kFirstWeight, kSecondWeight},
       .outputs = {5},
       .ops = {Linear(kX, kFirstWeight, 3),
               {.target = between, .args = {{ValueRef{3}}}, .results = {4}},
               Linear(4, kSecondWeight, 5)},
       .differentiable_inputs = {kX, kFirstWeight, kSecondWeight},
       .differentiable_outputs = {5}},
      {.inputs = {5},
       .outputs = {kLoss},
       .ops = {{.target = "aten.sum.default",
                .args = {{ValueRef{5}}},
                .results = {kLoss}}},
       .differentiable_inputs = {5},
       .differentiable_outputs = {kLoss}}};
  program.instructions = {
      RunSegment{0},
      RunSegment{1},
      Ones{7},
      RunSegmentBackward{1, {7}, {8}},
      RunSegmentBackward{0, {8}, {9, 10, 11}},
      Redistribute{
          .kind = RedistributeKind::kAllReduce, .input = 9, .output = 12}};
  program.backward_begin = 2;
  program.loss = kLoss;
  return program;
}

std::string Deferred(ShardedProgram program, const LinkCosts& costs = kCosts) {
  DeferWeightGradients(costs, &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  return ToString(program);
}

TEST(WeightGradientsTest, ComeAfterTheReductionOfTheInputs) {
  EXPECT_THAT(Deferred(TwoProducts()),
              HasSubstr("  %9, none, none = backward of 0 (%8)\n"
                        "  %12 = all_reduce[tp, sum] %9\n"
                        "  %10, %11 = weight gradients of 0 (%1, %2)\n"));
}

TEST(WeightGradientsTest, TheReductionRunsBesideThem) {
  ShardedProgram program = TwoProducts();
  DeferWeightGradients(kCosts, &program);
  Overlap({}, &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  EXPECT_THAT(ToString(program),
              HasSubstr("  start %12 = all_reduce[tp, sum] %9\n"
                        "  %10, %11 = weight gradients of 0 (%1, %2)\n"
                        "  wait %12\n"));
}

void ExpectUnchanged(const ShardedProgram& program,
                     const LinkCosts& costs = kCosts) {
  EXPECT_EQ(Deferred(program, costs), ToString(program));
}

// 16 KiB are 15.6 us of bytes.
TEST(WeightGradientsTest, StayWhereTheLatencyIsWhatCosts) {
  EXPECT_THAT(Deferred(TwoProducts(), {.latency_us = 15, .us_per_mib = 1000}),
              HasSubstr("weight gradients"));
  ExpectUnchanged(TwoProducts(), {.latency_us = 16, .us_per_mib = 1000});
}

TEST(WeightGradientsTest, StayOnOneRank) {
  ShardedProgram program = TwoProducts();
  program.mesh = *DeviceMesh::Create({{"tp", 1}});
  ExpectUnchanged(program);
}

TEST(WeightGradientsTest, StayWhereNothingIsReduced) {
  ShardedProgram program = TwoProducts();
  program.values[9].spec = program.values[kX].spec;
  program.instructions.back() =
      Redistribute{.kind = RedistributeKind::kAlias, .input = 9, .output = 12};
  ExpectUnchanged(program);
}

// Somebody needs one before the reduction.
TEST(WeightGradientsTest, StayWhereTheyAreNeededFirst) {
  ShardedProgram program = TwoProducts();
  program.instructions.insert(program.instructions.end() - 1,
                              Accumulate{{10}, 13});
  ExpectUnchanged(program);
}

// The second weight alone: the first one is used twice.
TEST(WeightGradientsTest, AWeightOfSeveralOpsStays) {
  ShardedProgram program = TwoProducts();
  program.segments[0].ops[1] = {.target = "aten.add.Tensor",
                                .args = {{ValueRef{3}}, {ValueRef{1}}},
                                .results = {4}};
  EXPECT_THAT(Deferred(program), HasSubstr("%11 = weight gradients of 0 (%2)"));
}

// What comes of an op that cuts gradients off, or of one that nobody knows,
// may not ask for one.
TEST(WeightGradientsTest, InputsSurelyAskForAGradient) {
  for (const char* op : {"aten.detach.default", "aten.mystery.default",
                         "aten.floor_divide.default"}) {
    EXPECT_THAT(Deferred(TwoProducts(op)),
                HasSubstr("%10 = weight gradients of 0 (%1)"))
        << op;
  }
  ShardedProgram program = TwoProducts();
  program.segments[0].differentiable_inputs = {kFirstWeight, kSecondWeight};
  program.instructions[4] = RunSegmentBackward{0, {8}, {10, 11}};
  program.instructions[5] = Redistribute{
      .kind = RedistributeKind::kAllReduce, .input = 10, .output = 12};
  program.values[10].spec = program.values[9].spec;
  ExpectUnchanged(program);
}

}  // namespace
}  // namespace shardplane
