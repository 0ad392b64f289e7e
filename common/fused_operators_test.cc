#include "common/fused_operators.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

ProgramArgument V(ValueId id) { return {ValueRef{id}}; }
ProgramArgument I(int64_t number) { return {number}; }
ProgramArgument List(ProgramArgumentList items) { return {std::move(items)}; }

Op Call(const std::string& target, std::vector<ProgramArgument> args,
        ValueId result) {
  return {.target = "aten." + target,
          .args = std::move(args),
          .results = {result},
          .fqn = "m"};
}

// Values of bf16[2, 8], but %1, a weight.
ShardedProgram Program(std::vector<Op> ops, std::vector<ValueId> outputs) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 1}});
  for (int i = 0; i < 20; ++i) {
    program.values.push_back(
        {"",
         {DType::kBFloat16, i == 1 ? Shape{8} : Shape{2, 8}},
         DTensorSpec::Replicated(1)});
  }
  program.inputs = {{.value = 0}, {.value = 2}};
  program.parameters = {{.fqn = "w", .value = 1}};
  program.segments = {
      {.inputs = {0, 1, 2}, .outputs = outputs, .ops = std::move(ops)}};
  program.instructions = {RunSegment{0}};
  program.backward_begin = 1;
  program.outputs = std::move(outputs);
  return program;
}

std::string Fused(ShardedProgram program) {
  FuseOperators(&program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  return ToString(program);
}

void ExpectStays(const ShardedProgram& program) {
  EXPECT_EQ(Fused(program), ToString(program));
}

// ------------------------------------------------------------------ swiglu

std::vector<Op> Gated(bool swapped = false) {
  return {Call("silu.default", {V(0)}, 3), Call("neg.default", {V(2)}, 4),
          Call("mul.Tensor",
               swapped ? std::vector{V(4), V(3)} : std::vector{V(3), V(4)}, 5)};
}

TEST(FusedOperatorsTest, SwigluInEitherOrder) {
  for (const bool swapped : {false, true}) {
    EXPECT_THAT(Fused(Program(Gated(swapped), {5})),
                AllOf(HasSubstr("    %4 = aten.neg.default(%2)  # m\n"
                                "    %5 = shardplane.swiglu.default(%0, %4)"),
                      Not(HasSubstr("silu"))));
  }
}

TEST(FusedOperatorsTest, WhatOthersUseStays) {
  ExpectStays(Program(Gated(), {3, 5}));
  std::vector<Op> ops = Gated();
  ops.push_back(Call("neg.default", {V(3)}, 6));
  ExpectStays(Program(ops, {5, 6}));
}

TEST(FusedOperatorsTest, GatesThatAreBroadcastStay) {
  ShardedProgram program = Program(Gated(), {5});
  program.values[4].type.shape = {1, 8};
  ExpectStays(program);
}

// ------------------------------------------------------------------ rotary

struct RotaryCase {
  int64_t dim = 1;
  int64_t middle = 4;
  int64_t end = kEnd;
  bool swapped = false;
};

std::vector<Op> Rotated(const RotaryCase& c) {
  const auto pair = [&](ProgramArgument a, ProgramArgument b) {
    return c.swapped ? std::vector{std::move(b), std::move(a)}
                     : std::vector{std::move(a), std::move(b)};
  };
  return {Call("cos.default", {V(2)}, 3),
          Call("sin.default", {V(2)}, 4),
          Call("mul.Tensor", pair(V(0), V(3)), 5),
          Call("slice.Tensor", {V(0), I(c.dim), I(0), I(c.middle)}, 6),
          Call("slice.Tensor", {V(0), I(c.dim), I(c.middle), I(c.end)}, 7),
          Call("neg.default", {V(7)}, 8),
          Call("cat.default", {List({V(8), V(6)}), I(-1)}, 9),
          Call("mul.Tensor", pair(V(9), V(4)), 10),
          Call("add.Tensor", pair(V(5), V(10)), 11)};
}

// The same with halves that one op makes: a chunk or a split.
std::vector<Op> RotatedBySplit(const std::string& target, int64_t parts,
                               int64_t dim = -1) {
  std::vector<Op> ops = Rotated({});
  ops.erase(ops.begin() + 4);
  ops[3] = Call(target, {V(0), I(parts), I(dim)}, 6);
  ops[3].results = {6, 7};
  return ops;
}

TEST(FusedOperatorsTest, RotaryOfHalvesThatAreSplit) {
  for (const std::vector<Op>& ops : {RotatedBySplit("chunk.default", 2),
                                     RotatedBySplit("chunk.default", 2, 1),
                                     RotatedBySplit("split.Tensor", 4)}) {
    EXPECT_THAT(Fused(Program(ops, {11})),
                AllOf(HasSubstr("shardplane.rotary.default(%0, %3, %4)"),
                      Not(HasSubstr("cat")), Not(HasSubstr("chunk"))));
  }
}

TEST(FusedOperatorsTest, OtherSplitsStay) {
  ExpectStays(Program(RotatedBySplit("chunk.default", 4), {11}));
  ExpectStays(Program(RotatedBySplit("chunk.default", 2, 0), {11}));
  ExpectStays(Program(RotatedBySplit("split.Tensor", 2), {11}));
  ExpectStays(Program(RotatedBySplit("chunk.default", 2), {7, 11}));
  std::vector<Op> turned = RotatedBySplit("chunk.default", 2);
  turned[3].results = {7, 6};
  ExpectStays(Program(turned, {11}));
  std::vector<Op> twice = RotatedBySplit("chunk.default", 2);
  twice[5].args = {List({V(8), V(7)}), I(-1)};  // -b, b
  ExpectStays(Program(twice, {11}));
}

TEST(FusedOperatorsTest, RotaryInAnyOrder) {
  for (const RotaryCase& c :
       {RotaryCase{}, {.dim = -1}, {.end = 8}, {.swapped = true}}) {
    EXPECT_THAT(Fused(Program(Rotated(c), {11})),
                AllOf(HasSubstr("shardplane.rotary.default(%0, %3, %4)"),
                      Not(HasSubstr("cat")), Not(HasSubstr("mul"))));
  }
}

TEST(FusedOperatorsTest, OtherTurnsStay) {
  ExpectStays(Program(Rotated({.dim = 0}), {11}));
  ExpectStays(Program(Rotated({.middle = 2}), {11}));
  ExpectStays(Program(Rotated({.end = 6}), {11}));
  std::vector<Op> other_x = Rotated({});
  other_x[2].args[0] = V(2);
  ExpectStays(Program(other_x, {11}));
  std::vector<Op> same_half = Rotated({});
  same_half[4].args[0] = V(2);
  ExpectStays(Program(same_half, {11}));
  std::vector<Op> cut = Rotated({});
  ShardedProgram program = Program(cut, {11});
  program.values[4].type.shape = {1, 8};
  ExpectStays(program);
}

// ------------------------------------------------------------------- norms

std::vector<Op> WholeNorm() {
  return {Call("add.Tensor", {V(0), V(2)}, 3),
          Call("rms_norm.default", {V(3), List({I(8)}), V(1), {1e-6}}, 4)};
}

TEST(FusedOperatorsTest, ANormGoesToItsSum) {
  std::vector<Op> ops = WholeNorm();
  ops.insert(ops.begin() + 1, Call("neg.default", {V(3)}, 5));
  EXPECT_THAT(
      Fused(Program(ops, {3, 4, 5})),
      HasSubstr("    %3, %4 = shardplane.add_rms_norm.default(%0, %2, %1, "
                "1e-06, None)  # m\n    %5 = aten.neg.default(%3)"));
}

TEST(FusedOperatorsTest, TheSecondNormOfASumStays) {
  std::vector<Op> ops = WholeNorm();
  ops.push_back(Call("rms_norm.default", {V(3), List({I(8)})}, 5));
  EXPECT_THAT(Fused(Program(ops, {4, 5})),
              HasSubstr("%5 = aten.rms_norm.default(%3, [8])"));
}

TEST(FusedOperatorsTest, NormsWithoutASumOfTwoAlikeStay) {
  std::vector<Op> alone = WholeNorm();
  alone[0] = Call("neg.default", {V(0)}, 3);
  ExpectStays(Program(alone, {4}));
  std::vector<Op> number = WholeNorm();
  number[0].args[1] = I(1);
  ExpectStays(Program(number, {4}));
  std::vector<Op> scaled = WholeNorm();
  scaled[0].kwargs.emplace_back("alpha", I(2));
  ExpectStays(Program(scaled, {4}));
  std::vector<Op> dims = WholeNorm();
  dims[1].args[1] = List({I(2), I(8)});
  ExpectStays(Program(dims, {4}));
  ShardedProgram broadcast = Program(WholeNorm(), {4});
  broadcast.values[2].type.shape = {1, 8};
  ExpectStays(broadcast);
}

TEST(FusedOperatorsTest, AWeightThatComesAfterTheSum) {
  std::vector<Op> ops = WholeNorm();
  ops.insert(ops.begin() + 1, Call("neg.default", {V(1)}, 5));
  ops[2].args[2] = V(5);
  ExpectStays(Program(ops, {4}));
}

// %12 = its norm, of %3 = -%0.
std::vector<Op> WrittenNorm() {
  return {Call("neg.default", {V(0)}, 3),
          Call("to.dtype", {V(3), {DType::kFloat32}}, 4),
          Call("pow.Tensor_Scalar", {V(4), I(2)}, 5),
          Call("mean.dim", {V(5), List({I(-1)}), {true}}, 6),
          Call("add.Tensor", {V(6), I(1)}, 7),
          Call("rsqrt.default", {V(7)}, 8),
          Call("mul.Tensor", {V(4), V(8)}, 9),
          Call("to.dtype", {V(9), {DType::kBFloat16}}, 10),
          Call("mul.Tensor", {V(1), V(10)}, 12)};
}

TEST(FusedOperatorsTest, NormsThatAreWrittenOut) {
  EXPECT_THAT(Fused(Program(WrittenNorm(), {12})),
              AllOf(HasSubstr("    %3 = aten.neg.default(%0)  # m\n"
                              "    %12 = shardplane.cast_rms_norm.default(%3, "
                              "%1, 1, f32)  # m\n"),
                    Not(HasSubstr("aten.mul"))));
  std::vector<Op> after_a_sum = WrittenNorm();
  after_a_sum[0] = Call("add.Tensor", {V(0), V(2)}, 3);
  EXPECT_THAT(Fused(Program(after_a_sum, {3, 12})),
              HasSubstr("    %3, %12 = shardplane.add_rms_norm.default(%0, %2, "
                        "%1, 1, f32)  # m\n"));
}

TEST(FusedOperatorsTest, WhatIsNoNormStays) {
  const std::vector<std::pair<size_t, Op>> others = {
      {2, Call("pow.Tensor_Scalar", {V(4), I(3)}, 5)},
      {2, Call("pow.Tensor_Scalar", {V(2), I(2)}, 5)},
      {3, Call("mean.dim", {V(5), List({I(0)}), {true}}, 6)},
      {3, Call("mean.dim", {V(5), List({I(-1)}), {false}}, 6)},
      {4, Call("add.Tensor", {V(6), V(2)}, 7)},
      {7, Call("to.dtype", {V(9), {DType::kFloat64}}, 10)},
      {8, Call("mul.Tensor", {V(2), V(10)}, 12)}};
  for (const auto& [i, op] : others) {
    std::vector<Op> ops = WrittenNorm();
    ops[i] = op;
    ExpectStays(Program(ops, {12}));
  }
  for (const ValueId used : {4, 5, 8, 9, 10}) {
    ExpectStays(Program(WrittenNorm(), {used, 12}));
  }
}

// ----------------------------------------------------------- cross-entropy

ShardedProgram LossProgram(std::vector<ProgramArgument> more,
                           DType target = DType::kInt64) {
  std::vector<ProgramArgument> args = {V(3), V(2)};
  args.insert(args.end(), more.begin(), more.end());
  ShardedProgram program =
      Program({Call("to.dtype", {V(0), {DType::kFloat32}}, 3),
               Call("cross_entropy_loss.default", args, 4)},
              {4});
  program.values[2].type = {target, {2}};
  return program;
}

TEST(FusedOperatorsTest, CrossEntropyOfLogitsMadeWider) {
  EXPECT_THAT(Fused(LossProgram({})),
              AllOf(HasSubstr("    %4 = shardplane.cross_entropy.default(%0, "
                              "%2, 1, -100, f32)  # m\n"),
                    Not(HasSubstr("aten.to"))));
  EXPECT_THAT(Fused(LossProgram({{}, I(2), I(7), {0.0}})),
              HasSubstr("cross_entropy.default(%0, %2, 2, 7, f32)"));
}

// Of logits [4, 2, 8] that are made wider, then rows.
ShardedProgram FlatLossProgram(const Shape& rows) {
  ShardedProgram program = LossProgram({});
  std::vector<Op>& ops = program.segments[0].ops;
  ops[1].args[0] = V(5);
  ops.insert(ops.begin() + 1, Call("reshape.default",
                                   {V(3), List({I(rows[0]), I(rows[1])})}, 5));
  program.values[0].type.shape = program.values[3].type.shape = {4, 2, 8};
  program.values[5].type.shape = rows;
  program.values[2].type.shape = {rows[0]};
  return program;
}

TEST(FusedOperatorsTest, CrossEntropyOfLogitsMadeWiderThenFlat) {
  EXPECT_THAT(Fused(FlatLossProgram({8, 8})),
              AllOf(HasSubstr("    %4 = shardplane.cross_entropy.default(%0, "
                              "%2, 1, -100, f32)  # m\n"),
                    Not(HasSubstr("aten."))));
}

TEST(FusedOperatorsTest, CrossEntropyOfOtherRows) {
  EXPECT_THAT(Fused(FlatLossProgram({16, 4})),
              HasSubstr("cross_entropy.default(%5, %2, 1, -100, None)"));
  ShardedProgram used = FlatLossProgram({8, 8});
  used.segments[0].outputs = used.outputs = {4, 5};
  EXPECT_THAT(Fused(used),
              HasSubstr("cross_entropy.default(%5, %2, 1, -100, None)"));
}

TEST(FusedOperatorsTest, CrossEntropyAlone) {
  for (const bool used : {false, true}) {
    ShardedProgram program = LossProgram({});
    Op& to = program.segments[0].ops[0];
    if (used) {  // the wider logits, elsewhere
      program.segments[0].outputs = {3, 4};
      program.outputs = {3, 4};
    } else {
      to.args[1] = {DType::kFloat64};
    }
    EXPECT_THAT(Fused(program), HasSubstr("shardplane.cross_entropy.default("
                                          "%3, %2, 1, -100, None)"));
  }
}

TEST(FusedOperatorsTest, OtherCrossEntropiesStay) {
  ExpectStays(LossProgram({V(1)}));
  ExpectStays(LossProgram({{}, I(1), I(-100), {0.1}}));
  ExpectStays(LossProgram({}, DType::kFloat32));
  ShardedProgram batched = LossProgram({});
  batched.values[3].type.shape = {2, 8, 2};
  ExpectStays(batched);
}

}  // namespace
}  // namespace shardplane
