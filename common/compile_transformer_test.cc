// What a Transformer's parts become: collectives, arguments, gradients.
#include <string>
#include <utility>
#include <vector>

#include "common/compile.h"
#include "common/compile_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;
using testing::Not;

Node GetAttr(const std::string& fqn) {
  return {.name = fqn, .op = NodeOp::kGetAttr, .target = fqn};
}
Parameter Buffer(const std::string& fqn, const Shape& shape) {
  Parameter buffer = Param(fqn, shape, false);
  buffer.type.dtype = DType::kInt64;
  buffer.buffer = true;
  return buffer;
}
ModuleNode LayerNorm(const std::string& fqn) {
  ModuleNode node = Mod(fqn, "LayerNorm");
  node.attributes["normalized_shape"] = {ArgumentList{{int64_t{10}}}};
  return node;
}

// x [8, 10] -> norm -> norm2, both LayerNorms.
GraphModule TwoNorms() {
  return *GraphModule::Create(
      {Mod("", "Sequential"), LayerNorm("norm1"), LayerNorm("norm2")},
      {Param("norm1.weight", {10}), Param("norm1.bias", {10}),
       Param("norm2.weight", {10}), Param("norm2.bias", {10}, false)});
}

TEST(CompileTransformerTest, NormGradientsAreReducedOnceInOneBucket) {
  const ParallelStyle sequence{SequenceParallel{0}, ""};
  Request request{TwoNorms(), {Entry("norm*", sequence)}};
  request.mesh = {{"tp", 2}};
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_EQ(Count(steps, "all_reduce"), 1) << steps;
  EXPECT_EQ(Count(steps, "gather"), 0) << steps;
  EXPECT_EQ(Specs(compiled),
            "norm1.weight [R] [R]; norm1.bias [R] [R]; norm2.weight [R] [R]; "
            "norm2.bias [R] none");
  EXPECT_EQ(ToString(compiled->program.values[0].spec), "[S(0)]");
  const std::vector<CollectiveRecord> records =
      Collectives(compiled->program, Phase::kBackward, {0});
  ASSERT_EQ(records.size(), 1);
  EXPECT_EQ(records[0].send_elements, 30);  // three of ten
  EXPECT_TRUE(Validate(compiled->program).ok());
}

TEST(CompileTransformerTest, SequenceParallelCutsAReplicatedInput) {
  const ParallelStyle sequence{SequenceParallel{-2}, ""};
  const ParallelStyle whole{
      PrepareModuleInput{{{Replicate{}, Replicate{}}}, {}}, ""};
  Request request{TwoNorms(), {Entry("", whole), Entry("norm1", sequence)}};
  request.mesh = {{"tp", 2}};
  const std::string steps = Steps(Compile(request));
  EXPECT_EQ(Count(steps, "slice[tp, to 0]"), 1) << steps;
}

// Vocabulary 12 on 4 ranks: rows are looked up where they lie, and added up.
TEST(CompileTransformerTest, EmbeddingWithACutVocabulary) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"), GetAttr("ids"),
             Call("e", "embedding", {Ref("ids")}), Output(Ref("e"))}),
       Mod("embedding", "Embedding")},
      {Buffer("ids", {5}), Param("embedding.weight", {12, 6})});
  const auto compiled = Compile(
      {module, {Entry("embedding", Rowwise(Replicate{}, Replicate{}))}});
  const std::string steps = Steps(compiled);
  EXPECT_THAT(steps, HasSubstr("shardplane.embedding.default(%2, %1, "
                               "offset(12/tp), 12, -1)"));
  EXPECT_EQ(Count(steps, "all_reduce"), 1) << steps;
  EXPECT_EQ(Count(steps, "gather"), 0) << steps;
  EXPECT_EQ(Specs(compiled), "ids [R] none; embedding.weight [S(0)] [S(0)]");
}

// Five rows of two on 4 ranks are 3, 3, 3, 1 of ten columns.
TEST(CompileTransformerTest, ViewThatACutMissesGathersAndSaysSo) {
  const GraphModule module = *GraphModule::Create(
      {Root({Placeholder("x"),
             Call("h", "aten.view.default",
                  {Ref("x"),
                   {ArgumentList{{int64_t{8}}, {int64_t{5}}, {int64_t{2}}}}}),
             Output(Ref("h"))})},
      {});
  Request request{
      module,
      {Entry("", {PrepareModuleInput{{{Shard{1}, Shard{1}}}, {}}, ""})}};
  request.loss = false;
  const auto compiled = Compile(request);
  EXPECT_EQ(Count(Steps(compiled), "all_gather"), 1);
  ASSERT_EQ(compiled->diagnostics.size(), 1);
  EXPECT_EQ(compiled->diagnostics[0].severity, Severity::kNote);
  EXPECT_EQ(compiled->diagnostics[0].reason, "VIEW_GATHERS");
  EXPECT_THAT(compiled->diagnostics[0].message,
              HasSubstr("cut of dim 1 over tp=4 falls inside"));
  request.mesh = {{"tp", 5}};
  EXPECT_TRUE(Compile(request)->diagnostics.empty());
}

GraphModule Classifier(std::vector<Argument> more) {
  std::vector<Argument> args = {Ref("logits"), Ref("target")};
  args.insert(args.end(), more.begin(), more.end());
  return *GraphModule::Create(
      {Root({Placeholder("x"), GetAttr("target"),
             Call("logits", "head", {Ref("x")}),
             Call("loss", "aten.cross_entropy_loss.default", std::move(args)),
             Output(Ref("loss"))}),
       Mod("head", "Linear")},
      {Buffer("target", {8}), Param("head.weight", {14, 10})});
}

TEST(CompileTransformerTest, CrossEntropyOfCutClassesGathersNothing) {
  for (const int64_t reduction : {0, 1, 2}) {
    const auto compiled =
        Compile({Classifier({{}, {reduction}, {int64_t{-100}}, {0.1}}),
                 {Entry("head", Colwise())}});
    const std::string steps = Steps(compiled);
    EXPECT_EQ(Count(steps, "all_reduce[tp, max]"), 1) << steps;
    EXPECT_EQ(Count(steps, "all_reduce"), 2) << steps;
    EXPECT_EQ(Count(steps, "gather"), 0) << steps;
    EXPECT_THAT(steps, HasSubstr("offset(14/tp), 14, -100, 0.1)"));
    const auto forward = Collectives(compiled->program, Phase::kForward, {0});
    EXPECT_EQ(forward[1].send_elements, 3 * 8);
    EXPECT_TRUE(Collectives(compiled->program, Phase::kBackward, {0}).empty());
  }
}

TEST(CompileTransformerTest, CrossEntropyOfWholeLogitsIsOneOp) {
  const auto compiled = Compile(
      {Classifier({}), {Entry("head", Colwise(Replicate{}, Replicate{}))}});
  EXPECT_THAT(Steps(compiled), HasSubstr("aten.cross_entropy_loss.default"));
}

// Rows on dp: losses and counts are added up over it.
TEST(CompileTransformerTest, CrossEntropyOfCutRows) {
  Request request{
      Classifier({}),
      {Entry("", {PrepareModuleInput{{{Shard{0}, Shard{0}}}, {}}, ""})}};
  request.mesh = {{"tp", 2}};
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_THAT(steps, HasSubstr("slice[tp, to 0]"));  // the targets
  EXPECT_EQ(Count(steps, "gather"), 0) << steps;
  EXPECT_THAT(steps, HasSubstr("aten.div.Tensor"));
}

GraphModule Dropouts(std::vector<Node> nodes) {
  nodes.insert(nodes.begin(), Placeholder("x"));
  return *GraphModule::Create({Root(std::move(nodes))}, {});
}
Node Dropout(const std::string& name, const std::string& of) {
  return Call(name, "aten.dropout.default", {Ref(of), {0.25}, {true}});
}

TEST(CompileTransformerTest, DropoutTakesGlobalSizesAndOffsets) {
  Request request{
      Dropouts({Dropout("y", "x"), Dropout("z", "y"), Output(Ref("z"))}),
      {Entry("", {PrepareModuleInput{{{Shard{1}, Shard{1}}}, {}}, ""})}};
  request.loss = false;
  const auto compiled = Compile(request);
  const std::string steps = Steps(compiled);
  EXPECT_THAT(steps, HasSubstr("[8, 10], [offset(8), offset(10/tp)])"));
  // Two calls in one module draw from two keys.
  const Segment& segment = compiled->program.segments[0];
  EXPECT_NE(segment.ops[0].args[3], segment.ops[1].args[3]);
  EXPECT_GE(compiled->program.random, 0);
  EXPECT_TRUE(Validate(compiled->program).ok());
}

TEST(CompileTransformerTest, DropoutKeysDependOnNoMesh) {
  const GraphModule module = Dropouts({Dropout("y", "x"), Output(Ref("y"))});
  std::vector<ProgramArgument> keys;
  for (const int size : {1, 2, 4}) {
    Request request{module, {}};
    request.loss = false;
    request.mesh = {{"tp", size}};
    keys.push_back(Compile(request)->program.segments[0].ops[0].args[3]);
  }
  EXPECT_EQ(keys[0], keys[1]);
  EXPECT_EQ(keys[0], keys[2]);
}

// Three heads on 4 ranks: one has none, and ATen's op cannot do without.
TEST(CompileTransformerTest, AttentionOnARankWithoutHeadsIsOurOwn) {
  for (const int ranks : {3, 4}) {
    Request request{
        *GraphModule::Create(
            {Root({Placeholder("x"),
                   Call("a", "aten.scaled_dot_product_attention.default",
                        {Ref("x"), Ref("x"), Ref("x")}),
                   Output(Ref("a"))})},
            {}),
        {Entry("", {PrepareModuleInput{{{Shard{1}, Shard{1}}}, {}}, ""})}};
    request.input = {2, 3, 5, 4};
    request.loss = false;
    request.mesh = {{"tp", ranks}};
    const std::string steps = Steps(Compile(request));
    EXPECT_EQ(Count(steps, "shardplane.attention.default"), ranks == 4)
        << steps;
    EXPECT_EQ(Count(steps, "gather"), 0) << steps;
  }
}

TEST(CompileTransformerTest, AttentionWithDropoutIsTakenApart) {
  const GraphModule module = Dropouts(
      {Call("q", "aten.view.default",
            {Ref("x"),
             {ArgumentList{
                 {int64_t{1}}, {int64_t{8}}, {int64_t{5}}, {int64_t{2}}}}}),
       Call("a", "aten.scaled_dot_product_attention.default",
            {Ref("q"), Ref("q"), Ref("q"), {}, {0.1}, {true}}),
       Output(Ref("a"))});
  Request request{
      module,
      {Entry("", {PrepareModuleInput{{{Shard{0}, Shard{0}}}, {}}, ""})}};
  request.loss = false;
  const std::string steps = Steps(Compile(request));
  EXPECT_THAT(steps, HasSubstr("aten.tril.default"));
  EXPECT_THAT(steps, HasSubstr("aten._safe_softmax.default"));
  EXPECT_THAT(steps,
              HasSubstr("[1, 8, 5, 5], [offset(1), offset(8/tp), offset(5), "
                        "offset(5)])"));
  EXPECT_THAT(steps, Not(HasSubstr("scaled_dot_product")));
}

}  // namespace
}  // namespace shardplane
