#include "worker/range_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace shardplane {
namespace {

using testing::ElementsAre;

class RangeNamesTest : public testing::Test {
 protected:
  RangeNamesTest() {
    program_.mesh = *DeviceMesh::Create({{"dp", 1}, {"tp", 2}});
    for (const char* name : {"x", "net1", "net2", "gradient of net1", "w"}) {
      program_.values.push_back(
          {name, {DType::kFloat32, {2}}, DTensorSpec::Replicated(2)});
    }
  }
  std::vector<std::string> Names(std::vector<Instruction> instructions) {
    program_.instructions = std::move(instructions);
    return InstructionNames(program_);
  }
  // A segment that calls an op of each of these modules.
  void AddSegment(const std::vector<std::string>& fqns) {
    Segment& segment = program_.segments.emplace_back();
    for (const std::string& fqn : fqns) {
      segment.ops.push_back({.target = "aten.relu.default", .fqn = fqn});
    }
  }

  ShardedProgram program_;
};

TEST_F(RangeNamesTest, OperatorsAreTheirModules) {
  AddSegment({"layers.0.wq", "layers.0.wq", "", "norm"});
  EXPECT_THAT(
      OperatorNames(program_.segments[0]),
      ElementsAre("layers.0.wq", "layers.0.wq", "aten.relu.default", "norm"));
}

TEST_F(RangeNamesTest, CollectivesAreAsInTheTextOfTheProgram) {
  EXPECT_THAT(
      Names({Redistribute{.kind = RedistributeKind::kAllReduce,
                          .mesh_dim = 1,
                          .op = ReduceOp::kSum,
                          .input = 2},
             Redistribute{.kind = RedistributeKind::kAllToAll,
                          .mesh_dim = 1,
                          .from_dim = 0,
                          .to_dim = 1,
                          .input = 0},
             Bucket{.kind = RedistributeKind::kAllGather,
                    .mesh_dim = 1,
                    .inputs = {1, 2},
                    .outputs = {3, 4},
                    .dims = {0, 1},
                    .async = true,
                    .again = true},
             Wait{{3, 4}}}),
      ElementsAre("all_reduce[tp, sum] net2", "all_to_all[tp, from 0, to 1] x",
                  "start all_gather[tp, from 0 1, again] net1, net2",
                  "wait gradient of net1, w"));
}

TEST_F(RangeNamesTest, WhatTakesNoTimeHasNoName) {
  AddSegment({"net1"});
  EXPECT_THAT(
      Names({RunSegment{0},
             Redistribute{.kind = RedistributeKind::kAlias, .mesh_dim = 1},
             Redistribute{.kind = RedistributeKind::kAllReduce, .mesh_dim = 0},
             Bucket{.mesh_dim = 0, .inputs = {1}, .outputs = {2}}, Ones{},
             Reshard{{1}}, Free{{0}}}),
      testing::Each(testing::IsEmpty()));
}

TEST_F(RangeNamesTest, BackwardNamesEachModuleOnce) {
  AddSegment({"net1", "relu", "net1"});
  AddSegment({"a", "b", "a", "c", "d", "e", "d"});
  EXPECT_THAT(
      Names({RunSegmentBackward{0}, RunSegmentBackward{1},
             RunWeightGradients{0, {4}, {3}}, Accumulate{{1, 2}, 3}}),
      ElementsAre("backward of net1, relu", "backward of a, b, c and 2 more",
                  "weight gradients of w", "accumulate gradient of net1"));
}

}  // namespace
}  // namespace shardplane
