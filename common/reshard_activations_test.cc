#include <string>
#include <utility>
#include <vector>

#include "common/reshard.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr ValueId kLoss = 5;

Op Call(const std::string& target, std::vector<ValueId> operands,
        ValueId result, const std::string& fqn) {
  Op op{.target = target, .results = {result}, .fqn = fqn};
  for (const ValueId id : operands) op.args.push_back({ValueRef{id}});
  return op;
}

// %2 = linear(%0, %1) of "a"; %3 = gelu(%2) and %4 = %3 * %3 of "b"; the loss
// is the sum of %4. All is replicated; gelu keeps %2, the product %3.
ShardedProgram Chain(int ranks = 2, int64_t rows = 4) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", ranks}});
  for (int i = 0; i < 11; ++i) {
    const bool scalar = i == kLoss || i == 6;
    program.values.push_back(
        {"",
         {DType::kFloat32, scalar ? Shape{} : Shape{rows, 4}},
         DTensorSpec::Replicated(1)});
  }
  program.parameters = {{.fqn = "a.weight", .value = 1, .gradient = 9}};
  program.inputs = {{.value = 0}};
  program.segments = {{.inputs = {0, 1},
                       .outputs = {2},
                       .ops = {Call("aten.linear.default", {0, 1}, 2, "a")},
                       .differentiable_inputs = {1},
                       .differentiable_outputs = {2}},
                      {.inputs = {2},
                       .outputs = {4},
                       .ops = {Call("aten.gelu.default", {2}, 3, "b"),
                               Call("aten.mul.Tensor", {3, 3}, 4, "b")},
                       .differentiable_inputs = {2},
                       .differentiable_outputs = {4}},
                      {.inputs = {4},
                       .outputs = {kLoss},
                       .ops = {Call("aten.sum.default", {4}, kLoss, "")},
                       .differentiable_inputs = {4},
                       .differentiable_outputs = {kLoss}}};
  program.instructions = {RunSegment{0},
                          RunSegment{1},
                          RunSegment{2},
                          Ones{6},
                          RunSegmentBackward{2, {6}, {7}},
                          RunSegmentBackward{1, {7}, {8}},
                          RunSegmentBackward{0, {8}, {9}}};
  program.backward_begin = 3;
  program.loss = kLoss;
  return program;
}

std::string Resharded(ShardedProgram program, std::vector<ReshardedInputs> of) {
  ReshardAfterForward({.parameters = {false}, .inputs = std::move(of)},
                      &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  return ToString(program);
}

void ExpectStays(const ShardedProgram& program,
                 const std::vector<ReshardedInputs>& of) {
  EXPECT_EQ(Resharded(program, of), ToString(program));
}

// %3 leaves its segment for it.
TEST(ReshardInputsTest, WhatIsKeptWholeIsCutUntilItsBackward) {
  const std::string text = Resharded(Chain(), {{"b", 0, 0}});
  EXPECT_THAT(text, HasSubstr("  %11, %12 = reshard[tp, to 0] %2, %3\n"
                              "  segment 2"));
  EXPECT_THAT(text, HasSubstr("%7 = backward of 2 (%6)\n"
                              "  %2 = all_gather[tp, from 0, again] %11\n"
                              "  %3 = all_gather[tp, from 0, again] %12\n"
                              "  %8 = backward of 1 (%7)"));
  EXPECT_THAT(text, HasSubstr("%11: f32[4, 4] [S(0)]"));
}

// "b" gets %2 under another id.
TEST(ReshardInputsTest, AliasesAreCutWithWhatTheyLieIn) {
  ShardedProgram program = Chain();
  program.segments[1].inputs = {10};
  program.segments[1].differentiable_inputs = {10};
  program.segments[1].ops[0] = Call("aten.gelu.default", {10}, 3, "b");
  program.instructions.insert(
      program.instructions.begin() + 1,
      Redistribute{.kind = RedistributeKind::kAlias, .input = 2, .output = 10});
  ++program.backward_begin;
  EXPECT_THAT(Resharded(program, {{"b", 0, 0}}),
              HasSubstr("  %11, %12 = reshard[tp, to 0] %2, %3\n"));
}

// "b" gets the sum of %2, which begins early; beside another one, %11, it lies
// in one block with that.
ShardedProgram SumOfChain(bool beside_another) {
  ShardedProgram program = Chain();
  program.values[2].spec = {{Partial{}}, {}};
  program.segments[1].inputs = {10};
  program.segments[1].differentiable_inputs = {10};
  program.segments[1].ops[0] = Call("aten.gelu.default", {10}, 3, "b");
  Bucket sums{.kind = RedistributeKind::kAllReduce,
              .inputs = {2},
              .outputs = {10},
              .async = true};
  if (beside_another) {
    sums.inputs.push_back(2);
    sums.outputs.push_back(11);
    program.values.push_back(program.values[10]);
  }
  const Wait wait{sums.outputs};
  const auto at = program.instructions.begin() + 1;
  program.instructions.insert(at, {sums, wait});
  program.backward_begin += 2;
  return program;
}

TEST(ReshardInputsTest, ASumThatBeginsEarlyIsCut) {
  EXPECT_THAT(Resharded(SumOfChain(false), {{"b", 0, 0}}),
              HasSubstr("reshard[tp, to 0] %10, %3\n"));
}

TEST(ReshardInputsTest, SumsInOneBlockStay) {
  EXPECT_THAT(Resharded(SumOfChain(true), {{"b", 0, 0}}),
              HasSubstr("reshard[tp, to 0] %3\n"));
}

TEST(ReshardInputsTest, TheTensorDimMayCountFromTheEnd) {
  EXPECT_THAT(Resharded(Chain(), {{"b", 0, -1}}),
              HasSubstr("reshard[tp, to 1] %2, %3"));
}

// "a" keeps the input of the module, which its caller holds; %2 is its result,
// which "b" keeps.
TEST(ReshardInputsTest, OfTheModulesThatAreNamed) {
  EXPECT_THAT(Resharded(Chain(), {{"a", 0, 0}}),
              HasSubstr("%11 = reshard[tp, to 0] %2\n"));
  EXPECT_THAT(Resharded(Chain(), {{"", 0, 0}}), HasSubstr("%2, %3\n"));
  ExpectStays(Chain(), {{"c", 0, 0}});
  ExpectStays(Chain(), {});
}

TEST(ReshardInputsTest, TheNearestModuleDecides) {
  EXPECT_THAT(Resharded(Chain(), {{"b", 0, 1}, {"", 0, 0}}),
              HasSubstr("reshard[tp, to 1] %2, %3"));
}

TEST(ReshardInputsTest, OneRankHasAll) { ExpectStays(Chain(1), {{"b", 0, 0}}); }

TEST(ReshardInputsTest, FewerElementsThanRanksStay) {
  ExpectStays(Chain(4, 3), {{"b", 0, 0}});
  ExpectStays(Chain(), {{"b", 0, 2}});
}

TEST(ReshardInputsTest, WhatIsCutOrPartialStays) {
  for (const Placement& placement :
       {Placement(Shard{1}), Placement(Partial{})}) {
    ShardedProgram program = Chain();
    program.values[2].spec = {{placement}, {}};
    program.values[3].spec = {{placement}, {}};
    ExpectStays(program, {{"b", 0, 0}});
  }
}

// The sum, which is not kept, and what the backward pass begins with.
// It is freed after its last use: autograd does not need it.
TEST(ReshardInputsTest, WhatIsNotKeptStays) {
  ShardedProgram program = Chain();
  program.segments[1].ops = {Call("aten.neg.default", {2}, 3, "b"),
                             Call("aten.add.Tensor", {3, 3}, 4, "b")};
  ExpectStays(std::move(program), {{"b", 0, 0}});
}

TEST(ReshardInputsTest, WhatIsNeededAtOnceStays) {
  ShardedProgram program = Chain();
  program.segments[2].ops[0].target = "aten.square.default";
  program.segments[2].ops[0].fqn = "b";
  const std::string text = Resharded(program, {{"b", 0, 0}});
  EXPECT_THAT(text, HasSubstr("%2, %3\n"));
  EXPECT_THAT(text, Not(HasSubstr("%4 = all_gather")));
}

// A view of %2 is there after its last use; of others nobody knows.
TEST(ReshardInputsTest, WhatOthersMayLieInStays) {
  for (const char* op :
       {"aten.view.default", "aten.to.dtype", "aten.mystery.default"}) {
    ShardedProgram program = Chain();
    program.segments[1].ops[0] = Call("aten.gelu.default", {2}, 3, "b");
    program.segments[1].ops[1] = Call(op, {2}, 4, "b");
    EXPECT_THAT(Resharded(program, {{"b", 0, 0}}), Not(HasSubstr(" %2 = all")))
        << op;
  }
}

TEST(ReshardInputsTest, ResultsStay) {
  ShardedProgram program = Chain();
  program.outputs = {2};
  EXPECT_THAT(Resharded(program, {{"b", 0, 0}}),
              HasSubstr("%11 = reshard[tp, to 0] %3\n"));
}

// Gathered from parts that are still there: it is cut as it was.
TEST(ReshardInputsTest, WhatWasGatheredIsGatheredAgainFromItsParts) {
  ShardedProgram program = Chain();
  program.values[10].spec = {{Shard{1}}, {}};
  program.segments[0].outputs = {10};
  program.segments[0].ops[0].results = {10};
  program.segments[0].differentiable_outputs = {10};
  program.instructions.insert(program.instructions.begin() + 1,
                              Redistribute{.kind = RedistributeKind::kAllGather,
                                           .from_dim = 1,
                                           .input = 10,
                                           .output = 2});
  ++program.backward_begin;
  const std::string text = Resharded(program, {{"b", 0, 0}});
  EXPECT_THAT(text, HasSubstr("  reshard %2\n"));
  EXPECT_THAT(text, HasSubstr("%2 = all_gather[tp, from 1, again] %10\n"));
  EXPECT_THAT(text, HasSubstr("%11 = reshard[tp, to 0] %3\n"));
}

}  // namespace
}  // namespace shardplane
