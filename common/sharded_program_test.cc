#include "common/sharded_program.h"

#include <string>
#include <vector>

#include "common/program_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

// y = all_reduce(x w^T) on [tp=2], w cut along its second dim.
ShardedProgram Rowwise() {
  const DTensorSpec s1{{Shard{1}}, {}};
  ShardedProgram p;
  p.mesh = *DeviceMesh::Create({{"tp", 2}});
  p.values = {{"x", {DType::kFloat32, {4, 5}}, s1},
              {"w", {DType::kFloat32, {3, 5}}, s1},
              {"product", {DType::kFloat32, {4, 3}}, {{Partial{}}, {}}},
              {"y", {DType::kFloat32, {4, 3}}, {{Replicate{}}, {}}}};
  Op op;
  op.target = "aten.linear.default";
  op.args = {{ValueRef{0}}, {ValueRef{1}}};
  op.results = {2};
  Segment segment;
  segment.inputs = {0, 1};
  segment.outputs = {2};
  segment.ops = {op};
  p.segments = {segment};
  p.parameters = {{"w", 1, -1}};
  p.inputs = {{0, -1}};
  p.outputs = {3};
  p.instructions = {RunSegment{0}, Redistribute{RedistributeKind::kAllReduce, 0,
                                                -1, -1, ReduceOp::kSum, 2, 3}};
  p.backward_begin = 2;
  return p;
}

TEST(ShardedProgramTest, TextForm) {
  EXPECT_EQ(ToString(Rowwise()), R"(mesh [tp=2]
parameters
  %1: f32[3, 5] [S(1)] w
inputs
  %0: f32[4, 5] [S(1)] x
outputs
  %3: f32[4, 3] [R] y
forward
  segment 0
    %2 = aten.linear.default(%0, %1)
  %3 = all_reduce[tp, sum] %2
values
  %0: f32[4, 5] [S(1)] x
  %1: f32[3, 5] [S(1)] w
  %2: f32[4, 3] [P(sum)] product
  %3: f32[4, 3] [R] y
)");
}

TEST(ShardedProgramTest, LongTextIsItsBeginning) {
  const std::string whole = ToString(Rowwise());
  EXPECT_EQ(ProgramText(Rowwise(), whole.size()), whole);
  const std::string part = ProgramText(Rowwise(), 60);
  const size_t end = part.find("... (2 instructions and 4 values in all)\n");
  ASSERT_NE(end, std::string::npos) << part;
  EXPECT_GT(end, 60u);
  EXPECT_LT(end, 110u);
  EXPECT_EQ(part.substr(0, end), whole.substr(0, end));
}

TEST(ShardedProgramTest, UpdatesAreInTheTextAndTheDigest) {
  ShardedProgram p = Rowwise();
  EXPECT_FALSE(ChangesBuffers(p));
  const std::string digest = Digest(p);
  p.parameters[0].update = 1;
  EXPECT_TRUE(ChangesBuffers(p));
  EXPECT_TRUE(Validate(p).ok()) << Validate(p);
  EXPECT_THAT(ToString(p), HasSubstr("%1: f32[3, 5] [S(1)] w, update %1\n"));
  EXPECT_NE(Digest(p), digest);
}

TEST(ShardedProgramTest, EqualProgramsHaveEqualDigests) {
  ShardedProgram other = Rowwise();
  EXPECT_EQ(Digest(other), Digest(Rowwise()));
  other.values[0].type.shape[0] = 5;
  EXPECT_NE(Digest(other), Digest(Rowwise()));
}

TEST(ShardedProgramTest, LocalSizesFollowTheRank) {
  const DeviceMesh mesh = *DeviceMesh::Create({{"dp", 2}, {"tp", 4}});
  // 5 cut by tp is 2, 2, 1, 0; times 3.
  const LocalSize size{{{5, {1}}, {3, {}}}};
  std::vector<int64_t> sizes;
  for (int tp = 0; tp < 4; ++tp) {
    sizes.push_back(Evaluate(size, mesh, {0, tp}));
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{6, 6, 3, 0}));
  EXPECT_EQ(Evaluate(LocalSize{}, mesh, {1, 3}), 1);
}

TEST(ShardedProgramTest, LocalOffsetsFollowTheRank) {
  const DeviceMesh mesh = *DeviceMesh::Create({{"dp", 2}, {"tp", 4}});
  const LocalOffset offset{5, {1}};
  std::vector<int64_t> offsets;
  for (int tp = 0; tp < 4; ++tp) {
    offsets.push_back(Evaluate(offset, mesh, {0, tp}));
  }
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 2, 4, 0}));  // the last is empty
  EXPECT_EQ(Evaluate(LocalOffset{5, {}}, mesh, {1, 3}), 0);
  EXPECT_EQ(Evaluate(LocalOffset{8, {0, 1}}, mesh, {1, 2}), 6);
}

// Two Partial values, reduced together.
ShardedProgram Bucket() {
  const DTensorSpec partial{{Partial{}}, {}};
  const DTensorSpec whole{{Replicate{}}, {}};
  ShardedProgram p;
  p.mesh = *DeviceMesh::Create({{"tp", 2}});
  p.values = {{"a", {DType::kFloat32, {4, 5}}, partial},
              {"b", {DType::kFloat32, {3}}, partial},
              {"a", {DType::kFloat32, {4, 5}}, whole},
              {"b", {DType::kFloat32, {3}}, whole}};
  p.inputs = {{0, -1}, {1, -1}};
  p.outputs = {2, 3};
  p.instructions = {
      shardplane::Bucket{.mesh_dim = 0, .inputs = {0, 1}, .outputs = {2, 3}}};
  p.backward_begin = 1;
  return p;
}

TEST(ShardedProgramTest, BucketIsOneCollectiveOfAllItsElements) {
  const ShardedProgram p = Bucket();
  ASSERT_TRUE(Validate(p).ok()) << Validate(p);
  EXPECT_THAT(ToString(p), HasSubstr("%2, %3 = all_reduce[tp, sum] %0, %1"));
  const auto records = Collectives(p, Phase::kForward, {1});
  ASSERT_EQ(records.size(), 1);
  EXPECT_EQ(records[0], (CollectiveRecord{RedistributeKind::kAllReduce, 0,
                                          DType::kFloat32, 23, 23}));
}

shardplane::Bucket& BucketOf(ShardedProgram* p) {
  return std::get<shardplane::Bucket>(p->instructions[0]);
}

// The same two values, of which each rank has rows, made whole; and back.
TEST(ShardedProgramTest, BucketsGatherAndScatterWithTheirPadding) {
  ShardedProgram p = Bucket();
  for (int i = 0; i < 2; ++i) p.values[i].spec = {{Shard{0}}, {}};
  BucketOf(&p).kind = RedistributeKind::kAllGather;
  BucketOf(&p).dims = {0, 0};
  ASSERT_TRUE(Validate(p).ok()) << Validate(p);
  EXPECT_THAT(ToString(p), HasSubstr("%2, %3 = all_gather[tp, from 0 0] %0"));
  // Two rows of five and two of three elements, the last of which is padding.
  const auto gathered = Collectives(p, Phase::kForward, {1});
  EXPECT_EQ(gathered[0], (CollectiveRecord{RedistributeKind::kAllGather, 0,
                                           DType::kFloat32, 12, 24}));
  for (int i = 0; i < 2; ++i) {
    p.values[i].spec = {{Partial{}}, {}};
    p.values[i + 2].spec = {{Shard{0}}, {}};
  }
  BucketOf(&p).kind = RedistributeKind::kReduceScatter;
  ASSERT_TRUE(Validate(p).ok()) << Validate(p);
  EXPECT_THAT(ToString(p),
              HasSubstr("%2, %3 = reduce_scatter[tp, to 0 0, sum] %0, %1"));
  const auto scattered = Collectives(p, Phase::kForward, {1});
  EXPECT_EQ(scattered[0], (CollectiveRecord{RedistributeKind::kReduceScatter, 0,
                                            DType::kFloat32, 24, 12}));
}

TEST(ShardedProgramTest, BadBucketsAreRefused) {
  const auto check = [](void (*plant)(ShardedProgram*)) {
    ShardedProgram p = Bucket();
    plant(&p);
    return std::string(Validate(p).message());
  };
  using P = ShardedProgram*;
  EXPECT_THAT(check([](P p) { BucketOf(p).outputs.pop_back(); }),
              HasSubstr("one output an input; got: 2 inputs and 1 outputs"));
  EXPECT_THAT(check([](P p) { BucketOf(p).mesh_dim = 1; }),
              HasSubstr("got: 1"));
  EXPECT_THAT(check([](P p) {
                p->values[1].spec = {{Replicate{}}, {}};
              }),
              HasSubstr("a bucket takes tensors"));
  EXPECT_THAT(check([](P p) {
                BucketOf(p).dims = {0, 0};
              }),
              HasSubstr("that is all_reduce has 0 dims; got: 2"));
  EXPECT_THAT(
      check([](P p) { BucketOf(p).kind = RedistributeKind::kAllGather; }),
      HasSubstr("that is all_gather has 2 dims; got: 0"));
  EXPECT_THAT(check([](P p) { BucketOf(p).kind = RedistributeKind::kSlice; }),
              HasSubstr("reduces, gathers or scatters; got: slice"));
  EXPECT_THAT(check([](P p) {
                p->values[1].type.dtype = DType::kFloat64;
                p->values[3].type.dtype = DType::kFloat64;
              }),
              HasSubstr("of one dtype"));
}

// Two weights, gathered as %2 and %3, which are aliased as %4.
ShardedProgram GatheredInTheBackground() {
  ShardedProgram p = Bucket();
  for (int i = 0; i < 2; ++i) p.values[i].spec = {{Shard{0}}, {}};
  p.values.push_back(p.values[2]);
  BucketOf(&p).kind = RedistributeKind::kAllGather;
  BucketOf(&p).dims = {0, 0};
  BucketOf(&p).async = true;
  shardplane::Bucket again = BucketOf(&p);
  again.again = true;
  p.instructions = {
      p.instructions[0],
      Wait{{2, 3}},
      Redistribute{.kind = RedistributeKind::kAlias, .input = 2, .output = 4},
      Reshard{{2, 3}},
      again,
      Wait{{2, 3}}};
  p.outputs = {2, 3, 4};
  p.backward_begin = static_cast<int>(p.instructions.size());
  return p;
}

TEST(ShardedProgramTest, WhatIsStartedIsWaitedFor) {
  ShardedProgram p = GatheredInTheBackground();
  ASSERT_TRUE(Validate(p).ok()) << Validate(p);
  const std::string text = ToString(p);
  EXPECT_THAT(text, HasSubstr("start %2, %3 = all_gather[tp, from 0 0] %0"));
  EXPECT_THAT(text, HasSubstr("reshard %2, %3\n"));
  EXPECT_THAT(text,
              HasSubstr("start %2, %3 = all_gather[tp, from 0 0, again]"));
  EXPECT_THAT(text, HasSubstr("wait %2, %3\n"));
  // Both phases run it.
  EXPECT_EQ(Collectives(p, Phase::kForward, {1}).size(), 2);
}

TEST(ShardedProgramTest, BadWaitsAndReshardsAreRefused) {
  using P = ShardedProgram*;
  const auto without = [](int instruction) {
    ShardedProgram p = GatheredInTheBackground();
    p.instructions.erase(p.instructions.begin() + instruction);
    --p.backward_begin;
    return std::string(Validate(p).message());
  };
  const auto check = [](void (*plant)(P)) {
    ShardedProgram p = GatheredInTheBackground();
    plant(&p);
    return std::string(Validate(p).message());
  };
  EXPECT_THAT(without(0), HasSubstr("was started before; got: %2"));
  EXPECT_THAT(without(1), HasSubstr("got: %2 before it was waited for"));
  EXPECT_THAT(without(3), HasSubstr("was resharded before; got: %2"));
  EXPECT_THAT(without(5), HasSubstr("one that leaves 2 values under way"));
  EXPECT_THAT(check([](P p) { p->backward_begin = 1; }),
              HasSubstr("one that leaves 2 values under way"));
  EXPECT_THAT(check([](P p) { p->instructions[3] = Reshard{{4}}; }),
              HasSubstr("has memory of its own; got: %4"));
  // Of one rank it is the parameter itself.
  EXPECT_THAT(check([](P p) {
                p->mesh = *DeviceMesh::Create({{"tp", 1}});
              }),
              HasSubstr("has memory of its own; got: %2"));
  EXPECT_THAT(
      check([](P p) { std::swap(p->instructions[2], p->instructions[3]); }),
      HasSubstr("got: %2 after it was resharded"));
  // The alias' memory is that of %2.
  EXPECT_THAT(check([](P p) {
                p->instructions.resize(4);
                p->backward_begin = 4;
                p->outputs = {4};
              }),
              HasSubstr("the memory of %4 is that of %2; got: a use after"));
  EXPECT_THAT(check([](P p) {
                std::get<shardplane::Bucket>(p->instructions[4]).kind =
                    RedistributeKind::kReduceScatter;
              }),
              HasSubstr("again is an all_gather; got: reduce_scatter"));
}

TEST(ShardedProgramTest, RandomIsTwoIntegers) {
  ShardedProgram p = Bucket();
  p.values.push_back({"random", {DType::kInt64, {2}}, {{Replicate{}}, {}}});
  p.random = 4;
  EXPECT_TRUE(Validate(p).ok());
  EXPECT_THAT(ToString(p), HasSubstr("random\n  %4: i64[2] [R]"));
  p.values[4].type.shape = {3};
  EXPECT_THAT(std::string(Validate(p).message()), HasSubstr("got: i64[3]"));
}

TEST(ShardedProgramTest, OneRankRunsNoCollective) {
  ShardedProgram p = Rowwise();
  EXPECT_EQ(Collectives(p, Phase::kForward, {1}).size(), 1);
  p.mesh = *DeviceMesh::Create({{"tp", 1}});
  EXPECT_TRUE(Collectives(p, Phase::kForward, {0}).empty());
}

struct Fault {
  const char* name;
  void (*plant)(ShardedProgram*);
  const char* message;
};

class BadProgram : public testing::TestWithParam<Fault> {};

TEST_P(BadProgram, IsRefusedBeforeItRuns) {
  ShardedProgram p = Rowwise();
  ASSERT_TRUE(Validate(p).ok()) << Validate(p);
  GetParam().plant(&p);
  const absl::Status status = Validate(p);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

Redistribute& Step(ShardedProgram* p) {
  return std::get<Redistribute>(p->instructions[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, BadProgram,
    testing::Values(
        Fault{"id_out_of_range", [](ShardedProgram* p) { p->outputs = {9}; },
              "got: 9"},
        Fault{"output_never_made",
              [](ShardedProgram* p) {
                p->instructions.pop_back();
                p->backward_begin = 1;
              },
              "got: %3 before"},
        Fault{"used_after_free",
              [](ShardedProgram* p) {
                p->instructions.insert(p->instructions.begin() + 1, Free{{2}});
                p->backward_begin = 3;
              },
              "got: %2 after it was freed"},
        Fault{"made_twice",
              [](ShardedProgram* p) {
                p->instructions.push_back(p->instructions[1]);
              },
              "got: %3 twice"},
        Fault{"wrong_kind_of_step",
              [](ShardedProgram* p) {
                Step(p).kind = RedistributeKind::kAllGather;
              },
              "all_gather along tp does not lead"},
        Fault{"wrong_reduction",
              [](ShardedProgram* p) { Step(p).op = ReduceOp::kMax; },
              "does not lead"},
        Fault{"no_such_mesh_dim",
              [](ShardedProgram* p) { Step(p).mesh_dim = 1; }, "got: 1"},
        Fault{"segment_uses_a_stranger",
              [](ShardedProgram* p) {
                p->segments[0].ops[0].args[1] = {ValueRef{3}};
              },
              "got: %3"},
        Fault{"segment_runs_twice",
              [](ShardedProgram* p) {
                p->instructions.insert(p->instructions.begin(), RunSegment{0});
              },
              "runs twice"},
        Fault{"backward_of_nothing",
              [](ShardedProgram* p) {
                p->instructions.insert(p->instructions.begin(),
                                       RunSegmentBackward{0, {}, {}});
              },
              "precedes its forward"},
        Fault{"shard_beyond_the_tensor",
              [](ShardedProgram* p) {
                p->values[0].spec.placements[0] = Shard{2};
              },
              "got:"},
        Fault{"backward_beyond_the_end",
              [](ShardedProgram* p) { p->backward_begin = 7; }, "got: 7"},
        Fault{"gradient_of_another_shape",
              [](ShardedProgram* p) { p->parameters[0].gradient = 3; },
              "got: f32[4, 3]"},
        Fault{"update_of_another_shape",
              [](ShardedProgram* p) { p->parameters[0].update = 3; },
              "the update of w is f32[3, 5] [S(1)]; got: f32[4, 3] [R]"},
        Fault{"update_never_made",
              [](ShardedProgram* p) {
                p->values.push_back(p->values[1]);
                p->parameters[0].update = 4;
              },
              "got: %4 before"}),
    [](const auto& info) { return std::string(info.param.name); });

// One segment whose activation %2 is cut until the backward pass, where the
// weight's gradient comes late.
ShardedProgram CutAndLate() {
  ShardedProgram p;
  p.mesh = *DeviceMesh::Create({{"tp", 2}});
  for (int i = 0; i < 9; ++i) {
    p.values.push_back(
        {"",
         {DType::kFloat32, {4, 4}},
         {{i == 3 ? Placement(Shard{1}) : Placement(Replicate{})}, {}}});
  }
  p.parameters = {{.fqn = "w", .value = 1, .gradient = 7}};
  p.inputs = {{.value = 0, .gradient = 6}};
  const Op linear{.target = "aten.linear.default",
                  .args = {{ValueRef{0}}, {ValueRef{1}}},
                  .results = {2}};
  p.segments = {{.inputs = {0, 1},
                 .outputs = {2},
                 .ops = {linear},
                 .differentiable_inputs = {0, 1},
                 .differentiable_outputs = {2}}};
  p.instructions = {RunSegment{0},
                    Reshard{{2}, {3}, 0, 1},
                    Ones{5},
                    shardplane::Bucket{.kind = RedistributeKind::kAllGather,
                                       .inputs = {3},
                                       .outputs = {2},
                                       .dims = {1},
                                       .again = true},
                    RunSegmentBackward{0, {5}, {6, -1}},
                    RunWeightGradients{0, {1}, {7}}};
  p.backward_begin = 2;
  return p;
}

TEST(ShardedProgramTest, ActivationsAreCutAndWeightGradientsCanBeLate) {
  const ShardedProgram p = CutAndLate();
  EXPECT_TRUE(Validate(p).ok()) << Validate(p);
  EXPECT_THAT(ToString(p), HasSubstr("  %3 = reshard[tp, to 1] %2\n"));
  EXPECT_THAT(ToString(p), HasSubstr("  %6, none = backward of 0 (%5)\n"
                                     "  %7 = weight gradients of 0 (%1)\n"));
  EXPECT_EQ(Collectives(p, Phase::kForward, {0}).size(), 0);
  EXPECT_EQ(Collectives(p, Phase::kBackward, {0}).size(), 1);
}

TEST(ShardedProgramTest, BadCutsAndLateGradientsAreRefused) {
  using P = ShardedProgram*;
  const auto check = [](void (*plant)(P)) {
    ShardedProgram p = CutAndLate();
    plant(&p);
    return std::string(Validate(p).message());
  };
  EXPECT_THAT(check([](P p) {
                p->instructions[1] = Reshard{{2}, {}, 1, -1};
              }),
              HasSubstr("mesh dims are below 1; got: 1"));
  EXPECT_THAT(check([](P p) {
                p->instructions[1] = Reshard{{2}, {3, 4}, 0, 1};
              }),
              HasSubstr("one part a value; got: 2 of 1"));
  EXPECT_THAT(check([](P p) {
                p->instructions[1] = Reshard{{2}, {3}, 0, 0};
              }),
              HasSubstr("slice along tp does not lead from"));
  EXPECT_THAT(check([](P p) {
                p->instructions[1] = Reshard{{0}, {3}, 0, 1};
              }),
              HasSubstr("has memory of its own; got: %0"));
  EXPECT_THAT(check([](P p) { p->instructions.pop_back(); }),
              HasSubstr("gradients are all made; got: none of %1"));
  EXPECT_THAT(check([](P p) {
                p->instructions[5] = RunWeightGradients{0, {0}, {7}};
              }),
              HasSubstr("has left out; got: that of %0"));
  EXPECT_THAT(check([](P p) {
                p->instructions[5] = RunWeightGradients{0, {1}, {7, 8}};
              }),
              HasSubstr("one a weight; got: 2 of 1"));
  EXPECT_THAT(
      check([](P p) {
        std::get<RunSegmentBackward>(p->instructions[4]).input_gradients[0] =
            -1;
      }),
      HasSubstr("are made at one time; got: none of %0"));
  EXPECT_THAT(check([](P p) {
                p->instructions[5] = RunWeightGradients{3, {1}, {7}};
              }),
              HasSubstr("segments are below 1; got: 3"));
}

}  // namespace
}  // namespace shardplane
