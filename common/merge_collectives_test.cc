#include "common/merge_collectives.h"

#include <string>
#include <utility>
#include <vector>

#include "common/redistribute.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

// A value of two dims that takes these placements one after the other, along
// the mesh dim: %0, %1, ...; the last one is the output.
ShardedProgram Moves(const std::vector<Placement>& placements) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  for (const Placement& placement : placements) {
    const ValueId id = static_cast<ValueId>(program.values.size());
    program.values.push_back(
        {"x", {DType::kFloat32, {4, 4}}, {{placement}, {}}});
    if (id == 0) continue;
    const RedistributeStep step =
        PlanRedistribute(program.values[id - 1].spec, program.values[id].spec)
            ->front();
    program.instructions.push_back(MoveOf(step, id - 1, id));
  }
  program.inputs = {{.value = 0}};
  program.outputs = {static_cast<ValueId>(program.values.size()) - 1};
  program.backward_begin = static_cast<int>(program.instructions.size());
  return program;
}

std::string Merged(ShardedProgram program) {
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  MergeCollectives(&program);
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  const std::string text = ToString(program);
  const size_t begin = text.find("forward\n") + 8;
  std::string steps = text.substr(begin, text.find("values\n") - begin);
  std::erase(steps, '\n');
  return steps;
}

struct Pair {
  const char* name;
  std::vector<Placement> placements;
  const char* merged;
};

class MergedPair : public testing::TestWithParam<Pair> {};

TEST_P(MergedPair, IsOneStepOrNone) {
  EXPECT_EQ(Merged(Moves(GetParam().placements)), GetParam().merged);
}

INSTANTIATE_TEST_SUITE_P(
    Pairs, MergedPair,
    testing::Values(Pair{"sum_and_slice",
                         {Partial{}, Replicate{}, Shard{1}},
                         "  %2 = reduce_scatter[tp, to 1, sum] %0"},
                    Pair{"scatter_and_gather",
                         {Partial{}, Shard{1}, Replicate{}},
                         "  %2 = all_reduce[tp, sum] %0"},
                    Pair{"gather_and_slice",
                         {Shard{0}, Replicate{}, Shard{1}},
                         "  %2 = all_to_all[tp, from 0, to 1] %0"},
                    Pair{"gather_and_undo",
                         {Shard{0}, Replicate{}, Shard{0}},
                         "  %2 = alias[tp] %0"},
                    Pair{"slice_and_undo",
                         {Replicate{}, Shard{0}, Replicate{}},
                         "  %2 = alias[tp] %0"},
                    Pair{"two_moves",
                         {Shard{0}, Shard{1}, Replicate{}},
                         "  %2 = all_gather[tp, from 0] %0"},
                    Pair{"three_steps",
                         {Partial{}, Replicate{}, Shard{0}, Shard{1}},
                         "  %3 = reduce_scatter[tp, to 1, sum] %0"}),
    [](const auto& info) { return std::string(info.param.name); });

// What is between is needed: an output, an operand, a gradient.
TEST(MergeCollectivesTest, WhatIsUsedStays) {
  ShardedProgram program = Moves({Partial{}, Replicate{}, Shard{1}});
  const std::string both =
      "  %1 = all_reduce[tp, sum] %0  %2 = slice[tp, to 1] %1";
  program.outputs.push_back(1);
  EXPECT_EQ(Merged(program), both);

  program = Moves({Partial{}, Replicate{}, Shard{1}});
  program.segments = {{.inputs = {1}}};
  program.instructions.push_back(RunSegment{0});
  ++program.backward_begin;
  EXPECT_THAT(Merged(program), HasSubstr(both));

  program = Moves({Partial{}, Replicate{}, Shard{1}});
  program.parameters = {{.fqn = "w", .value = 3, .gradient = 1}};
  program.values.push_back(program.values[1]);
  EXPECT_EQ(Merged(program), both);
}

// A forward pass alone stops in between.
TEST(MergeCollectivesTest, PhasesStayApart) {
  ShardedProgram program = Moves({Partial{}, Replicate{}, Shard{1}});
  program.backward_begin = 1;
  EXPECT_EQ(Merged(program),
            "  %1 = all_reduce[tp, sum] %0backward  %2 = slice[tp, to 1] %1");
}

TEST(MergeCollectivesTest, OtherMeshDimsStayApart) {
  ShardedProgram program = Moves({Partial{}, Replicate{}, Shard{1}});
  program.mesh = *DeviceMesh::Create({{"dp", 2}, {"tp", 2}});
  program.values[0].spec = {{Partial{}, Replicate{}}, {}};
  program.values[1].spec = {{Replicate{}, Replicate{}}, {}};
  program.values[2].spec = {{Replicate{}, Shard{1}}, {}};
  std::get<Redistribute>(program.instructions[1]).mesh_dim = 1;
  EXPECT_EQ(Merged(program),
            "  %1 = all_reduce[dp, sum] %0  %2 = slice[tp, to 1] %1");
}

}  // namespace
}  // namespace shardplane
