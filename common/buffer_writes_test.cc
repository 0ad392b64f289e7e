#include <string>
#include <utility>
#include <vector>

#include "common/compile_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

Node Attribute(const std::string& name) {
  return {name, NodeOp::kGetAttr, name, {}, {}, {}};
}

Parameter Buffer(const std::string& fqn, TensorType type) {
  Parameter buffer = Param(fqn, type.shape, false);
  buffer.type = std::move(type);
  buffer.buffer = true;
  return buffer;
}

GraphModule ModuleOf(std::vector<Node> nodes, std::vector<Parameter> more) {
  return *GraphModule::Create({Root(std::move(nodes))}, std::move(more));
}

// "mean <- %7, count <- %9", by the program's parameters.
std::vector<std::string> Updated(const CompiledProgram& compiled) {
  std::vector<std::string> names;
  for (const ParameterBinding& p : compiled.program.parameters) {
    if (p.update >= 0) names.push_back(p.fqn);
  }
  return names;
}

ValueId UpdateOf(const CompiledProgram& compiled, const std::string& fqn) {
  for (const ParameterBinding& p : compiled.program.parameters) {
    if (p.fqn == fqn) return p.update;
  }
  return -1;
}

// The op that makes a value; "": none does.
std::string MadeBy(const CompiledProgram& compiled, ValueId id) {
  for (const Segment& segment : compiled.program.segments) {
    for (const Op& op : segment.ops) {
      if (op.results == std::vector<ValueId>{id}) return op.target;
    }
  }
  return "";
}

TEST(BufferWritesTest, ReadsAfterAWriteGetWhatWasWritten) {
  const auto compiled = Compile(
      {.module = ModuleOf(
           {Placeholder("x"), Attribute("mean"),
            Call("old", "aten.relu.default", {Ref("mean")}),
            Call("sum", "aten.add.Tensor", {Ref("x"), Ref("mean")}),
            Call("write", "aten.copy_.default", {Ref("mean"), Ref("sum")}),
            Call("product", "aten.mul.Tensor", {Ref("mean"), Ref("old")}),
            Call("again", "aten.neg.default", {Ref("write")}),
            Call("y", "aten.add.Tensor", {Ref("product"), Ref("again")}),
            Output(Ref("y"))},
           {Buffer("mean", {DType::kFloat64, {8, 10}})}),
       .plan = {},
       .input_grad = true});
  ASSERT_THAT(compiled, IsOk());
  EXPECT_THAT(Updated(*compiled), ElementsAre("mean"));
  const ValueId update = UpdateOf(*compiled, "mean");
  EXPECT_EQ(MadeBy(*compiled, update), "aten.alias.default");
  // The product and the negative read the new value, the relu the old one.
  const ValueId stored = compiled->program.parameters[0].value;
  std::vector<std::string> old_readers;
  std::vector<std::string> new_readers;
  for (const Segment& segment : compiled->program.segments) {
    for (const Op& op : segment.ops) {
      for (const ProgramArgument& arg : op.args) {
        if (arg.value == ProgramArgument{ValueRef{stored}}.value) {
          old_readers.push_back(op.target);
        }
        if (arg.value == ProgramArgument{ValueRef{update}}.value) {
          new_readers.push_back(op.target);
        }
      }
    }
  }
  EXPECT_THAT(old_readers, ElementsAre("aten.relu.default", "aten.add.Tensor"));
  EXPECT_THAT(new_readers, ElementsAre("aten.mul.Tensor", "aten.neg.default"));
  EXPECT_TRUE(ChangesBuffers(compiled->program));
}

TEST(BufferWritesTest, TheLastWriteCountsAndHasTheBuffersType) {
  const auto compiled = Compile(
      {.module = ModuleOf(
           {Placeholder("x"), Attribute("count"),
            Call("one", "aten.add.Scalar", {Ref("count"), {int64_t{1}}}),
            Call("w1", "aten.copy_.default", {Ref("count"), Ref("one")}),
            Call("half", "aten.sum.default", {Ref("x")}),
            Call("w2", "aten.copy_.default", {Ref("count"), Ref("half")}),
            Output(Ref("x"))},
           {Buffer("count", {DType::kInt64, {}})}),
       .plan = {},
       .loss = false});
  ASSERT_THAT(compiled, IsOk());
  const ValueId update = UpdateOf(*compiled, "count");
  ASSERT_GE(update, 0);
  EXPECT_EQ(compiled->program.values[update].type,
            (TensorType{DType::kInt64, {}}));
  EXPECT_EQ(MadeBy(*compiled, update), "aten.to.dtype");
}

// A mean over cut rows is a sum to be made before each rank keeps it.
TEST(BufferWritesTest, WhatIsWrittenLiesAsTheBufferDoes) {
  PrepareModuleInput cut;
  cut.inputs = {{Shard{0}, Shard{0}}};
  const auto compiled = Compile(
      {.module = ModuleOf(
           {Placeholder("x"), Attribute("mean"),
            Call("rows", "aten.mean.dim",
                 {Ref("x"), {ArgumentList{{int64_t{0}}}}}),
            Call("write", "aten.copy_.default", {Ref("mean"), Ref("rows")}),
            Output(Ref("x"))},
           {Buffer("mean", {DType::kFloat32, {10}})}),
       .plan = {Entry("", {cut, ""})},
       .loss = false});
  ASSERT_THAT(compiled, IsOk());
  const ValueId update = UpdateOf(*compiled, "mean");
  ASSERT_GE(update, 0);
  EXPECT_TRUE(IsReplicate(compiled->program.values[update].spec.placements[0]));
  EXPECT_EQ(Count(Steps(compiled), "= all_reduce"), 1) << Steps(compiled);
}

std::vector<Node> BatchNorm(bool training) {
  return {Placeholder("x"), Attribute("mean"), Attribute("var"),
          Call("y", "aten.batch_norm.default",
               {Ref("x"),
                {},
                {},
                Ref("mean"),
                Ref("var"),
                {training},
                {0.1},
                {1e-5},
                {false}}),
          Output(Ref("y"))};
}

TEST(BufferWritesTest, BatchNormKeepsStatisticsInTrainingModeAlone) {
  const std::vector<Parameter> buffers = {
      Buffer("mean", {DType::kFloat32, {10}}),
      Buffer("var", {DType::kFloat32, {10}})};
  const auto training = Compile({.module = ModuleOf(BatchNorm(true), buffers),
                                 .plan = {},
                                 .loss = false});
  ASSERT_THAT(training, IsOk());
  EXPECT_THAT(Updated(*training), ElementsAre("mean", "var"));
  const auto eval = Compile({.module = ModuleOf(BatchNorm(false), buffers),
                             .plan = {},
                             .loss = false});
  ASSERT_THAT(eval, IsOk());
  EXPECT_THAT(Updated(*eval), ElementsAre());
  EXPECT_FALSE(ChangesBuffers(eval->program));
}

TEST(BufferWritesTest, OnlyBuffersAreWritten) {
  const auto compiled =
      Compile({.module = ModuleOf(
                   {Placeholder("x"),
                    Call("write", "aten.copy_.default", {Ref("x"), Ref("x")}),
                    Output(Ref("x"))},
                   {}),
               .plan = {},
               .loss = false});
  EXPECT_THAT(compiled,
              AllOf(HasReason("WRITE_TO_NO_BUFFER"),
                    StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("the root module: aten.copy_.default "
                                       "(write) expects a whole buffer"))));
}

}  // namespace
}  // namespace shardplane
