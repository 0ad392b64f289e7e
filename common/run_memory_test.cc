#include "common/run_memory.h"

#include <string>
#include <vector>

#include "common/compile_fixture.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

// %0 input, 16 bytes; %1 inside and %2 out of a segment; %3 its alias; %4 the
// gradient of %3; %5 of %0.
ShardedProgram TinyProgram(const std::string& first, const std::string& second,
                           bool backward) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 1}});
  for (int i = 0; i < 6; ++i) {
    program.values.push_back({"", {DType::kFloat32, {4}}, {{Replicate{}}, {}}});
  }
  Segment segment;
  segment.inputs = {0};
  segment.outputs = {2};
  segment.ops = {{.target = first, .args = {{ValueRef{0}}}, .results = {1}},
                 {.target = second, .args = {{ValueRef{1}}}, .results = {2}}};
  program.inputs = {{.value = 0, .gradient = backward ? 5 : -1}};
  program.outputs = {2};
  program.instructions = {
      RunSegment{0},
      Redistribute{.kind = RedistributeKind::kAlias, .input = 2, .output = 3}};
  program.backward_begin = 2;
  if (backward) {
    segment.differentiable_inputs = {0};
    segment.differentiable_outputs = {2};
    program.loss = 2;
    program.instructions.push_back(Ones{4});
    program.instructions.push_back(RunSegmentBackward{0, {4}, {5}});
    program.instructions.push_back(Free{{4}});
  }
  program.segments = {segment};
  return program;
}

int64_t Peak(const std::string& first, const std::string& second,
             bool backward) {
  return PeakOfRun(TinyProgram(first, second, backward), {0}).run;
}

// %0, %1 and %2 while the second op runs; an alias is no memory.
TEST(PeakOfRunTest, CountsWhatLivesAtOneTime) {
  EXPECT_EQ(Peak("aten.neg.default", "aten.neg.default", false), 3 * 16);
}

// Of 2 x 2 elements, half of dim `dim`.
int64_t PeakOfSlice(int dim) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  const TensorType type{DType::kFloat32, {2, 2}};
  program.values = {{"x", type, {{Replicate{}}, {}}},
                    {"x", type, {{Shard{dim}}, {}}}};
  program.inputs = {{.value = 0}};
  program.outputs = {1};
  program.instructions = {Redistribute{.kind = RedistributeKind::kSlice,
                                       .to_dim = dim,
                                       .input = 0,
                                       .output = 1}};
  program.backward_begin = 1;
  return PeakOfRun(program, {0}).run;
}

// Rows lie together, columns are copied.
TEST(PeakOfRunTest, SlicesAreMemoryWhereTheyAreCopied) {
  EXPECT_EQ(PeakOfSlice(0), 16);
  EXPECT_EQ(PeakOfSlice(1), 16 + 8);
}

TEST(PeakOfRunTest, ViewsAreNoMemory) {
  EXPECT_EQ(Peak("aten.view.default", "aten.neg.default", false), 2 * 16);
  EXPECT_EQ(Peak("aten.view.default", "aten.view.default", false), 16);
}

// Backward: %0, %2, what is kept, and the gradients of %1 and of %0. A number
// that is filled in beforehand is no memory of the run.
TEST(PeakOfRunTest, KeepsWhatTheBackwardNeeds) {
  EXPECT_EQ(Peak("aten.neg.default", "aten.neg.default", true), 4 * 16);
  // gelu keeps its operand: of the second, that is %1.
  EXPECT_EQ(Peak("aten.neg.default", "aten.gelu.default", true), 4 * 16);
  EXPECT_EQ(Peak("aten.gelu.default", "aten.gelu.default", true), 4 * 16);
  // tanh keeps its result, which for the first is %1 until its own backward.
  EXPECT_EQ(Peak("aten.tanh.default", "aten.neg.default", true), 5 * 16);
}

// f64: x [8, 10], h [8, 16] and its relu, y [8, 10]. Forward h goes before y
// comes.
TEST(PeakOfRunTest, ForwardOfAnMlp) {
  Request request{Mlp(), {}};
  request.loss = false;
  request.mesh = {{"tp", 1}};
  const RunPeak peak = PeakOfRun(Compile(request)->program, {0});
  EXPECT_EQ(peak.run, 8 * (8 * 10 + 2 * 8 * 16));
  EXPECT_EQ(peak.activations, peak.run);
}

TEST(PeakOfRunTest, GradientsOfParametersAreCountedApart) {
  Request request{Mlp(10, 1600), {}};
  request.mesh = {{"tp", 1}};
  const RunPeak peak = PeakOfRun(Compile(request)->program, {0});
  EXPECT_GT(peak.run, peak.activations);
  // No more than all of them.
  EXPECT_LE(peak.run,
            peak.activations + 8 * (1600 * 10 + 1600 + 10 * 1600 + 10));
}

// Sixteen hidden units over three ranks are 6, 6 and 4.
TEST(PeakOfRunTest, RanksDiffer) {
  Request request{Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  request.mesh = {{"tp", 3}};
  const auto compiled = Compile(request);
  const RunPeak first = PeakOfRun(compiled->program, {0});
  EXPECT_EQ(PeakOfRun(compiled->program, {1}), first);
  EXPECT_LT(PeakOfRun(compiled->program, {2}).run, first.run);
}

TEST(PeakOfRunTest, ACutHalvesIt) {
  Request request{Mlp(10, 1600),
                  {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  request.mesh = {{"tp", 1}};
  const double whole =
      static_cast<double>(PeakOfRun(Compile(request)->program, {0}).run);
  request.mesh = {{"tp", 2}};
  const double half =
      static_cast<double>(PeakOfRun(Compile(request)->program, {0}).run);
  EXPECT_NEAR(half / whole, 0.5, 0.05);
}

}  // namespace
}  // namespace shardplane
