#include "common/overlap.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;
using testing::Not;

// Values of layer i: its weight as it is stored, and gathered; what comes out
// of it, x for layer -1; gradients of its output, of the gathered weight and of
// the stored one.
constexpr int kValues = 6;
constexpr ValueId Stored(int i) { return kValues * i + 1; }
constexpr ValueId Gathered(int i) { return kValues * i + 2; }
constexpr ValueId Out(int i) { return i < 0 ? 0 : kValues * i + 3; }
constexpr ValueId OutGradient(int i) { return kValues * i + 4; }
constexpr ValueId Gradient(int i) { return kValues * i + 5; }
constexpr ValueId Scattered(int i) { return kValues * i + 6; }

Bucket Gather(int i, bool again) {
  return {.kind = RedistributeKind::kAllGather,
          .inputs = {Stored(i)},
          .outputs = {Gathered(i)},
          .dims = {0},
          .again = again};
}

// Layers of one weight each, fully sharded; of several ranks they are resharded
// but for the last.
ShardedProgram Layers(int layers, int ranks = 2) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"dp", ranks}});
  const TensorType type{DType::kFloat32, {4, 4}};
  const DTensorSpec whole = {{Replicate{}}, {}};
  const DTensorSpec cut = {{Shard{0}}, {}};
  program.values.push_back({"x", type, whole});
  program.inputs = {{.value = 0}};
  for (int i = 0; i < layers; ++i) {
    program.values.push_back({"weight", type, cut});
    program.values.push_back({"weight", type, whole});
    program.values.push_back({"y", type, whole});
    program.values.push_back({"gradient of y", type, whole});
    program.values.push_back({"gradient", type, {{Partial{}}, {}}});
    program.values.push_back({"gradient", type, cut});
    program.parameters.push_back(
        {.fqn = "w", .value = Stored(i), .gradient = Scattered(i)});
    Segment segment{.inputs = {Out(i - 1), Gathered(i)},
                    .outputs = {Out(i)},
                    .differentiable_inputs = {Gathered(i)},
                    .differentiable_outputs = {Out(i)}};
    segment.ops = {{.target = "aten.mm.default",
                    .args = {{ValueRef{Out(i - 1)}}, {ValueRef{Gathered(i)}}},
                    .results = {Out(i)}}};
    if (i > 0) segment.differentiable_inputs.push_back(Out(i - 1));
    program.segments.push_back(segment);
    program.instructions.push_back(Gather(i, false));
    program.instructions.push_back(RunSegment{i});
    if (i + 1 < layers && ranks > 1) {
      program.instructions.push_back(Reshard{{Gathered(i)}});
    }
  }
  program.loss = Out(layers - 1);
  program.backward_begin = static_cast<int>(program.instructions.size());
  program.instructions.push_back(Ones{OutGradient(layers - 1)});
  for (int i = layers - 1; i >= 0; --i) {
    if (i + 1 < layers && ranks > 1) {
      program.instructions.push_back(Gather(i, true));
    }
    RunSegmentBackward back{i, {OutGradient(i)}, {Gradient(i)}};
    if (i > 0) back.input_gradients.push_back(OutGradient(i - 1));
    program.instructions.push_back(back);
    program.instructions.push_back(
        Redistribute{.kind = RedistributeKind::kReduceScatter,
                     .to_dim = 0,
                     .input = Gradient(i),
                     .output = Scattered(i)});
  }
  return program;
}

std::string StepsOf(const ShardedProgram& program) {
  const std::string text = ToString(program);
  const size_t begin = text.find("\nforward");
  return text.substr(begin, text.find("values\n") - begin);
}

std::string Overlapped(ShardedProgram program, OverlapOptions options = {}) {
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  Overlap(options, &program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  return StepsOf(program);
}

TEST(OverlapTest, TheNextLayerIsGatheredWhileOneRuns) {
  const std::string text = Overlapped(Layers(3), {.gradients = false});
  // Backward: the last layer's weight is there, and the one before it begins.
  EXPECT_EQ(text, R"(
forward
  %2 = all_gather[dp, from 0] %1
  start %8 = all_gather[dp, from 0] %7
  segment 0 recording %2
    %3 = aten.mm.default(%0, %2)
  reshard %2
  wait %8
  start %14 = all_gather[dp, from 0] %13
  segment 1 recording %8, %3
    %9 = aten.mm.default(%3, %8)
  reshard %8
  wait %14
  segment 2 recording %14, %9
    %15 = aten.mm.default(%9, %14)
backward
  start %8 = all_gather[dp, from 0, again] %7
  %16 = ones
  %17, %10 = backward of 2 (%16)
  %18 = reduce_scatter[dp, to 0, sum] %17
  wait %8
  start %2 = all_gather[dp, from 0, again] %1
  %11, %4 = backward of 1 (%10)
  %12 = reduce_scatter[dp, to 0, sum] %11
  wait %2
  %5 = backward of 0 (%4)
  %6 = reduce_scatter[dp, to 0, sum] %5
)");
}

// Until the next one begins; what nothing runs beside is not started.
TEST(OverlapTest, GradientsAreReducedWhileTheBackwardGoesOn) {
  const std::string text = Overlapped(Layers(2), {.prefetch = false});
  EXPECT_EQ(text.substr(text.find("backward\n")), R"(backward
  %10 = ones
  %11, %4 = backward of 1 (%10)
  start %12 = reduce_scatter[dp, to 0, sum] %11
  %2 = all_gather[dp, from 0, again] %1
  %5 = backward of 0 (%4)
  wait %12
  %6 = reduce_scatter[dp, to 0, sum] %5
)");
}

// Along a second mesh dim: the result is needed at once.
TEST(OverlapTest, WhatIsUsedAtOnceIsNotStarted) {
  ShardedProgram program = Layers(2);
  const int last = static_cast<int>(program.instructions.size()) - 4;
  auto& scatter = std::get<Redistribute>(program.instructions[last]);
  ASSERT_EQ(scatter.output, Scattered(1));
  const ValueId sum = static_cast<ValueId>(program.values.size());
  program.values.push_back(program.values[Scattered(1)]);
  program.parameters[1].gradient = sum;
  program.instructions.insert(program.instructions.begin() + last + 1,
                              Accumulate{{Scattered(1)}, sum});
  EXPECT_THAT(Overlapped(program, {.prefetch = false}),
              Not(HasSubstr("start")));
}

TEST(OverlapTest, OneRankWaitsForNothing) {
  const ShardedProgram program = Layers(3, 1);
  EXPECT_EQ(Overlapped(program), StepsOf(program));
}

TEST(OverlapTest, MayBeSwitchedOff) {
  const ShardedProgram program = Layers(3);
  EXPECT_EQ(Overlapped(program, {.prefetch = false, .gradients = false}),
            StepsOf(program));
}

// Cut along two mesh dims: the second gather needs the first.
TEST(OverlapTest, WhatIsGatheredOfGatheredOnesIsNotAhead) {
  ShardedProgram program = Layers(2);
  program.mesh = *DeviceMesh::Create({{"a", 2}, {"dp", 2}});
  for (Value& value : program.values) {
    value.spec.placements.insert(value.spec.placements.begin(), Replicate{});
  }
  const ValueId inner = static_cast<ValueId>(program.values.size());
  program.values.push_back(program.values[Stored(1)]);
  program.values[Stored(1)].spec = {{Shard{0}, Shard{0}}, {}};
  program.values[inner].spec = {{Shard{0}, Replicate{}}, {}};
  Bucket outer = Gather(1, false);
  outer.inputs = {inner};
  Bucket first = Gather(1, false);
  first.mesh_dim = 1;
  first.outputs = {inner};
  program.instructions.resize(program.backward_begin);
  for (Instruction& instruction : program.instructions) {
    if (auto* bucket = std::get_if<Bucket>(&instruction)) bucket->mesh_dim = 1;
  }
  program.instructions[3] = first;
  program.instructions.insert(program.instructions.begin() + 4, outer);
  program.backward_begin = static_cast<int>(program.instructions.size());
  for (ParameterBinding& p : program.parameters) p.gradient = -1;
  program.loss = -1;
  const std::string text = Overlapped(program);
  EXPECT_THAT(text, HasSubstr("start %13 = all_gather[dp, from 0] %7"));
  EXPECT_THAT(text, HasSubstr("wait %13\n  %8 = all_gather[a, from 0] %13"));
}

// A program of steps over values of one shape: an op for each segment, which
// reads the values that stand for it and makes the next one.
class Steps {
 public:
  Steps() {
    program_.mesh = *DeviceMesh::Create({{"tp", 2}});
    program_.values.push_back({"x", kType, kWhole});
    program_.inputs = {{.value = 0}};
  }

  ValueId Run(std::vector<ValueId> inputs) {
    const ValueId out = Add(kWhole);
    Op op{.target = "aten.op.default", .results = {out}};
    for (const ValueId id : inputs) op.args.push_back({ValueRef{id}});
    program_.segments.push_back(
        {.inputs = std::move(inputs), .outputs = {out}, .ops = {op}});
    program_.instructions.push_back(
        RunSegment{static_cast<int>(program_.segments.size()) - 1});
    return out;
  }
  ValueId Slice(ValueId id) {
    return Move({.kind = RedistributeKind::kSlice, .to_dim = 0, .input = id},
                kCut);
  }
  ValueId Gather(ValueId id) {
    return Move(
        {.kind = RedistributeKind::kAllGather, .from_dim = 0, .input = id},
        kWhole);
  }
  ValueId Scatter(ValueId id) {
    program_.values[id].spec = {{Partial{}}, {}};
    return Move(
        {.kind = RedistributeKind::kReduceScatter, .to_dim = 0, .input = id},
        kCut);
  }
  ShardedProgram Finish() {
    program_.backward_begin = static_cast<int>(program_.instructions.size());
    return program_;
  }

 private:
  static inline const TensorType kType{DType::kFloat32, {4, 4}};
  static inline const DTensorSpec kWhole{{Replicate{}}, {}};
  static inline const DTensorSpec kCut{{Shard{0}}, {}};

  ValueId Add(const DTensorSpec& spec) {
    program_.values.push_back({"", kType, spec});
    return static_cast<ValueId>(program_.values.size()) - 1;
  }
  ValueId Move(Redistribute step, const DTensorSpec& spec) {
    step.output = Add(spec);
    program_.instructions.push_back(step);
    return step.output;
  }

  ShardedProgram program_;
};

TEST(OverlapTest, AGatherBeginsBeforeWhatRunsBeforeIt) {
  Steps steps;
  const ValueId x = steps.Run({0});
  const ValueId a = steps.Slice(x);
  const ValueId b = steps.Slice(x);
  const ValueId y = steps.Run({steps.Gather(a)});
  steps.Run({steps.Gather(b), y});
  const ShardedProgram program = steps.Finish();
  // What is gathered first was made by nothing that it could run beside.
  EXPECT_EQ(Overlapped(program), R"(
forward
  segment 0
    %1 = aten.op.default(%0)
  %2 = slice[tp, to 0] %1
  %3 = slice[tp, to 0] %1
  %4 = all_gather[tp, from 0] %2
  start %6 = all_gather[tp, from 0] %3
  segment 1
    %5 = aten.op.default(%4)
  wait %6
  segment 2
    %7 = aten.op.default(%6, %5)
)");
  EXPECT_THAT(Overlapped(program, {.chunks = false}), Not(HasSubstr("start")));
}

TEST(OverlapTest, AGatherDoesNotBeginBeforeItsInputIsMade) {
  Steps steps;
  const ValueId x = steps.Run({0});
  steps.Run({steps.Gather(steps.Slice(steps.Run({x})))});
  EXPECT_THAT(Overlapped(steps.Finish()), Not(HasSubstr("start")));
}

// The scatter is waited for where its result is gathered, not before.
TEST(OverlapTest, AGatherWaitsForWhatIsUnderWay) {
  Steps steps;
  const ValueId a = steps.Scatter(steps.Run({0}));
  const ValueId y = steps.Run({0});
  steps.Run({steps.Gather(a), y});
  EXPECT_THAT(Overlapped(steps.Finish()), HasSubstr(R"(
  start %2 = reduce_scatter[tp, to 0, sum] %1
  segment 1
    %3 = aten.op.default(%0)
  wait %2
  %4 = all_gather[tp, from 0] %2
)"));
}

}  // namespace
}  // namespace shardplane
