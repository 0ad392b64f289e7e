#include "proto/convert/program.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/random_values.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

TEST(ProgramTest, RandomProgramsComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    const ShardedProgram program = random.AnyProgram();
    const auto back = FromProto(ToProto(program), "body");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == program);
  }
}

TEST(ProgramTest, RandomSignaturesComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    const Signature signature = random.AnySignature();
    const auto back = FromProto(ToProto(signature), "signature");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == signature);
  }
}

TEST(ProgramTest, EveryRedistributeKindComesBack) {
  using Step = pb::ShardedProgram::Redistribute;
  for (int i = Step::Kind_MIN + 1; i <= Step::Kind_MAX; ++i) {
    const auto kind = FromProto(static_cast<Step::Kind>(i), "kind");
    ASSERT_TRUE(kind.ok()) << i;
    EXPECT_EQ(ToProto(*kind), i);
  }
}

class BadSignatureTest : public testing::TestWithParam<BadMessage> {};

TEST_P(BadSignatureTest, IsRefusedWithItsField) {
  EXPECT_THAT(
      FromProto(ParseText<pb::ProgramSignature>(GetParam().text), "signature")
          .status(),
      IsFieldError(GetParam().code,
                   absl::StrCat("signature.", GetParam().field)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSignatureTest,
    testing::Values(
        BadMessage{"InputWithoutType", "inputs {}", "inputs[0].type.dtype"},
        BadMessage{"IntegerInputWithGradient",
                   "inputs { type { dtype: DTYPE_INT64 } requires_grad: true }",
                   "inputs[0].requires_grad"},
        BadMessage{"LossWithoutKind", "loss {}", "loss"},
        BadMessage{"LossUnspecified", "loss { reduction: 0 }",
                   "loss.reduction"},
        BadMessage{"LossUnknown", "loss { reduction: 7 }", "loss.reduction"},
        BadMessage{"LossGraphEmpty", "loss { graph {} }", "loss.graph.nodes"},
        BadMessage{"TargetsWithoutLoss", "targets {}", "targets"},
        BadMessage{"TargetWithoutType",
                   "loss { reduction: REDUCTION_SUM } targets {}",
                   "targets[0].type.dtype"}),
    [](const auto& info) { return info.param.name; });

// One mesh dim, two values, one segment of one op: something to break.
constexpr char kProgram[] = R"(
  mesh { dims { name: "tp" size: 2 } }
  values { type { dtype: DTYPE_FLOAT32 } spec { placements { replicate {} } } }
  values { type { dtype: DTYPE_FLOAT32 } spec { placements { replicate {} } } }
  segments { ops { target: "aten.relu.default" args { value: 0 } results: 1 } }
)";

class BadProgramTest : public testing::TestWithParam<BadMessage> {};

TEST_P(BadProgramTest, IsRefusedWithItsField) {
  const auto message =
      ParseText<pb::ShardedProgram>(absl::StrCat(kProgram, GetParam().text));
  EXPECT_THAT(
      FromProto(message, "body").status(),
      IsFieldError(GetParam().code, absl::StrCat("body.", GetParam().field)));
}

std::string Segment(const std::string& text) {
  return absl::StrCat("segments { ", text, " }");
}
std::string Argument(const std::string& text) {
  return Segment(absl::StrCat("ops { target: 'a' args { ", text, " } }"));
}
std::string Instruction(const std::string& text) {
  return absl::StrCat("instructions { ", text, " }");
}

INSTANTIATE_TEST_SUITE_P(
    All, BadProgramTest,
    testing::Values(
        BadMessage{"ValueWithoutType", "values {}", "values[2].type.dtype"},
        BadMessage{"SegmentInput", Segment("inputs: 2"),
                   "segments[1].inputs[0]"},
        BadMessage{"SegmentOutput", Segment("outputs: [0, -1]"),
                   "segments[1].outputs[1]"},
        BadMessage{"DifferentiableInput", Segment("differentiable_inputs: 9"),
                   "segments[1].differentiable_inputs[0]"},
        BadMessage{"DifferentiableOutput", Segment("differentiable_outputs: 9"),
                   "segments[1].differentiable_outputs[0]"},
        BadMessage{"OpWithoutTarget", Segment("ops {}"),
                   "segments[1].ops[0].target"},
        BadMessage{"OpResult", Segment("ops { target: 'a' results: -1 }"),
                   "segments[1].ops[0].results[0]"},
        BadMessage{"OpKeywordWithoutName",
                   Segment("ops { target: 'a' kwargs { value { none {} } } }"),
                   "segments[1].ops[0].kwargs[0].name"},
        BadMessage{"ArgumentWithoutKind", Argument(""),
                   "segments[1].ops[0].args[0]"},
        BadMessage{"ArgumentValue", Argument("value: 2"),
                   "segments[1].ops[0].args[0].value"},
        BadMessage{"ArgumentDType", Argument("dtype: DTYPE_UNSPECIFIED"),
                   "segments[1].ops[0].args[0].dtype"},
        BadMessage{"ArgumentItem", Argument("list { items { value: 5 } }"),
                   "segments[1].ops[0].args[0].list.items[0].value"},
        BadMessage{"SizeExtent",
                   Argument("local_size { factors { extent: -1 } }"),
                   "segments[1].ops[0].args[0].local_size.factors[0].extent"},
        BadMessage{"SizeCut",
                   Argument("local_size { factors { extent: 1 cuts: 1 } }"),
                   "segments[1].ops[0].args[0].local_size.factors[0].cuts[0]"},
        BadMessage{"NoInstruction", Instruction(""), "instructions[0]"},
        BadMessage{"RunSegment", Instruction("run_segment { segment: 1 }"),
                   "instructions[0].run_segment.segment"},
        BadMessage{"Backward",
                   Instruction("run_segment_backward { segment: -1 }"),
                   "instructions[0].run_segment_backward.segment"},
        BadMessage{"BackwardOutput",
                   Instruction("run_segment_backward { output_gradients: [-1, "
                               "-2] }"),
                   "instructions[0].run_segment_backward.output_gradients[1]"},
        BadMessage{"BackwardInput",
                   Instruction("run_segment_backward { input_gradients: 3 }"),
                   "instructions[0].run_segment_backward.input_gradients[0]"},
        BadMessage{"RedistributeKind", Instruction("redistribute {}"),
                   "instructions[0].redistribute.kind"},
        BadMessage{"RedistributeMeshDim",
                   Instruction("redistribute { kind: KIND_ALIAS mesh_dim: 1 }"),
                   "instructions[0].redistribute.mesh_dim"},
        BadMessage{"RedistributeFrom",
                   Instruction("redistribute { kind: KIND_ALIAS from_dim: -2 "
                               "}"),
                   "instructions[0].redistribute.from_dim"},
        BadMessage{"RedistributeTo",
                   Instruction("redistribute { kind: KIND_ALIAS to_dim: 16 }"),
                   "instructions[0].redistribute.to_dim"},
        BadMessage{"RedistributeOp",
                   Instruction("redistribute { kind: KIND_ALIAS op: 8 }"),
                   "instructions[0].redistribute.op"},
        BadMessage{"RedistributeInput",
                   Instruction("redistribute { kind: KIND_ALIAS input: 2 }"),
                   "instructions[0].redistribute.input"},
        BadMessage{"AccumulateOutput", Instruction("accumulate { output: 2 }"),
                   "instructions[0].accumulate.output"},
        BadMessage{"OnesOutput", Instruction("ones { output: 2 }"),
                   "instructions[0].ones.output"},
        BadMessage{"FreeValue", Instruction("free { values: [0, 1, 2] }"),
                   "instructions[0].free.values[2]"},
        BadMessage{"ParameterWithoutFqn", "parameters {}", "parameters[0].fqn"},
        BadMessage{"ParameterGradient", "parameters { fqn: 'w' gradient: -2 }",
                   "parameters[0].gradient"},
        BadMessage{"InputValue", "inputs { value: 2 }", "inputs[0].value"},
        BadMessage{"Output", "outputs: 2", "outputs[0]"},
        BadMessage{"Loss", "loss: 2", "loss"},
        BadMessage{"BackwardBegin", "backward_begin: 1", "backward_begin"}),
    [](const auto& info) { return info.param.name; });

TEST(ProgramTest, GarbageIsRefusedOrRead) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 1000; ++i) {
    const std::string bytes = Garble(
        ToProto(random.AnyProgram()).SerializeAsString(), random.engine());
    pb::ShardedProgram message;
    if (message.ParseFromString(bytes)) {
      const auto program = FromProto(message, "body");
      if (program.ok()) {
        // What was read may be checked and printed without harm.
        Validate(*program).IgnoreError();
        EXPECT_FALSE(ToString(*program).empty());
      }
    }
  }
}

}  // namespace
}  // namespace shardplane
