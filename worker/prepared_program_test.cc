#include "worker/prepared_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros_like.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/gang_for_test.h"
#include "worker/nvtx_range.h"
#include "worker/nvtx_recorder_for_test.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct BucketPart {
  Shape shape;
  Placement on_dp;  // on the first mesh dim
};

// Its inputs, summed over tp in one bucket, on a [dp, tp] mesh.
ShardedProgram Bucket(const DeviceMesh& mesh,
                      const std::vector<BucketPart>& parts) {
  ShardedProgram program;
  program.mesh = mesh;
  shardplane::Bucket bucket{.mesh_dim = 1};
  for (const BucketPart& part : parts) {
    const TensorType type{DType::kFloat32, part.shape};
    const ValueId id = static_cast<ValueId>(program.values.size());
    program.values.push_back({"part", type, {{part.on_dp, Partial{}}, {}}});
    program.values.push_back({"sum", type, {{part.on_dp, Replicate{}}, {}}});
    program.inputs.push_back({.value = id});
    program.outputs.push_back(id + 1);
    bucket.inputs.push_back(id);
    bucket.outputs.push_back(id + 1);
  }
  program.instructions = {bucket};
  program.backward_begin = 1;
  return program;
}

// A matrix that dp cuts into 2 rows and 1, a scalar, nothing, and a vector.
const std::vector<BucketPart>& Parts() {
  static const auto* parts = new std::vector<BucketPart>{{{3, 2}, Shard{0}},
                                                         {{}, Replicate{}},
                                                         {{0, 4}, Replicate{}},
                                                         {{2}, Replicate{}}};
  return *parts;
}

// What one rank puts in: numbers that tell element, part and rank apart.
std::vector<at::Tensor> InputsOf(const ShardedProgram& program,
                                 const std::vector<int>& coordinate,
                                 c10::Device device) {
  std::vector<at::Tensor> inputs;
  for (const InputBinding& binding : program.inputs) {
    const Value& value = program.values[binding.value];
    const Shape shape =
        LocalShape(value.type.shape, value.spec, program.mesh, coordinate);
    const double first = 100.0 * static_cast<double>(inputs.size()) +
                         1000.0 * coordinate[0] + 10000.0 * coordinate[1];
    inputs.push_back((at::arange(NumElements(shape)) + first)
                         .to(at::kFloat)
                         .view(shape)
                         .to(device));
  }
  return inputs;
}

class BucketTest : public testing::TestWithParam<std::vector<MeshDim>> {};

TEST_P(BucketTest, SumsEachOfItsTensors) {
  GangForTest gang(GetParam());
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  const DeviceMesh& mesh = gang.mesh();
  const ShardedProgram program = Bucket(mesh, Parts());
  gang.Run([&](int rank, Communicator& communicator) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    const c10::Device device = communicator.device();
    auto prepared = PreparedProgram::Create(
        program, {.coordinate = coordinate, .device = device});
    ASSERT_THAT(prepared, IsOk());
    const std::vector<at::Tensor> inputs =
        InputsOf(program, coordinate, device);
    const auto result =
        (*prepared)->Run(RunMode::kForward, {}, inputs, communicator);
    ASSERT_THAT(result, IsOk());
    ASSERT_EQ(result->outputs.size(), inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      at::Tensor sum = at::zeros_like(inputs[i]);
      for (int tp = 0; tp < mesh.dim_size(1); ++tp) {
        sum += InputsOf(program, {coordinate[0], tp}, device)[i];
      }
      EXPECT_TRUE(result->outputs[i].equal(sum)) << result->outputs[i] << sum;
    }
    EXPECT_EQ(result->forward,
              Collectives(program, Phase::kForward, coordinate));
  });
}

// Rows that do not divide, columns, and one row of which only rank 0 has any.
TEST_P(BucketTest, GathersAndScattersAsEachAloneWould) {
  GangForTest gang(GetParam());
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  const DeviceMesh& mesh = gang.mesh();
  const std::vector<int> dims = {0, 1, 0};
  const std::vector<int64_t> extents = {5, 4, 1};
  gang.Run([&](int rank, Communicator& communicator) {
    const int ranks = mesh.dim_size(1);
    const int at = mesh.Coordinate(rank)[1];
    const auto numbers =
        at::TensorOptions(communicator.device()).dtype(at::kFloat);
    std::vector<at::Tensor> whole = {at::arange(15, numbers).view({5, 3}),
                                     at::arange(8, numbers).view({2, 4}),
                                     at::arange(2, numbers).view({1, 2})};
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < whole.size(); ++i) {
      const Extent extent = Chunk(extents[i], ranks, at);
      parts.push_back(whole[i].narrow(dims[i], extent.offset, extent.size));
      whole[i] = whole[i] + rank;
    }
    auto gathering = communicator.BeginAllGatherEach(parts, 1, dims, extents);
    auto scattering =
        communicator.BeginReduceScatterEach(whole, 1, dims, ReduceOp::kSum);
    ASSERT_THAT(gathering, IsOk());
    ASSERT_THAT(scattering, IsOk());
    // Ended in another order than they began in.
    const auto scattered = (*scattering)();
    const auto gathered = (*gathering)();
    ASSERT_THAT(gathered, IsOk());
    ASSERT_THAT(scattered, IsOk());
    EXPECT_EQ(communicator.TakeRecords().size(), ranks == 1 ? 0 : 2);
    for (size_t i = 0; i < whole.size(); ++i) {
      const auto alone =
          communicator.AllGather(parts[i], 1, dims[i], extents[i]);
      EXPECT_TRUE((*gathered)[i].equal(*alone)) << i;
      EXPECT_TRUE((*gathered)[i].equal(whole[i] - rank)) << i;
      for (size_t k = 0; k < i && ranks > 1; ++k) {
        EXPECT_FALSE((*gathered)[i].is_alias_of((*gathered)[k])) << i << k;
        EXPECT_FALSE((*scattered)[i].is_alias_of((*scattered)[k])) << i << k;
      }
      const auto sum =
          communicator.ReduceScatter(whole[i], 1, dims[i], ReduceOp::kSum);
      EXPECT_TRUE((*scattered)[i].equal(*sum)) << i;
    }
  });
}

// y = x w and z = sum(y w) of a weight %1 of which each rank has rows: it is
// gathered as %2, loses its memory after each use and gets it back for the
// next, backward from what autograd has kept.
ShardedProgram Resharding(const DeviceMesh& mesh) {
  ShardedProgram p;
  p.mesh = mesh;
  const TensorType matrix{DType::kFloat32, {5, 5}};
  const TensorType scalar{DType::kFloat32, {}};
  const DTensorSpec whole = DTensorSpec::Replicated(2);
  p.values = {{"x", matrix, whole},
              {"w", matrix, {{Replicate{}, Shard{0}}, {}}},
              {"w", matrix, whole},
              {"y", matrix, whole},
              {"yw", matrix, whole},
              {"z", scalar, whole},
              {"gradient of z", scalar, whole}};
  for (int i = 0; i < 4; ++i) p.values.push_back({"", matrix, whole});
  p.inputs = {{.value = 0}};
  p.parameters = {{.fqn = "w", .value = 1, .gradient = 10}};
  p.outputs = {3};
  p.loss = 5;
  const auto mm = [](ValueId a, ValueId b, ValueId out) {
    return Op{.target = "aten.mm.default",
              .args = {{ValueRef{a}}, {ValueRef{b}}},
              .results = {out}};
  };
  p.segments = {{.inputs = {0, 2},
                 .outputs = {3},
                 .ops = {mm(0, 2, 3)},
                 .differentiable_inputs = {2},
                 .differentiable_outputs = {3}},
                {.inputs = {3, 2},
                 .outputs = {5},
                 .ops = {mm(3, 2, 4),
                         {.target = "aten.sum.default",
                          .args = {{ValueRef{4}}},
                          .results = {5}}},
                 .differentiable_inputs = {3, 2},
                 .differentiable_outputs = {5}}};
  shardplane::Bucket again{.kind = RedistributeKind::kAllGather,
                           .mesh_dim = 1,
                           .inputs = {1},
                           .outputs = {2},
                           .dims = {0},
                           .async = true,
                           .again = true};
  p.instructions = {Redistribute{.kind = RedistributeKind::kAllGather,
                                 .mesh_dim = 1,
                                 .from_dim = 0,
                                 .input = 1,
                                 .output = 2},
                    RunSegment{0},
                    Reshard{{2}},
                    again,
                    Wait{{2}},
                    RunSegment{1},
                    Reshard{{2}},
                    Ones{6},
                    again,
                    Wait{{2}},
                    RunSegmentBackward{1, {6}, {7, 8}},
                    RunSegmentBackward{0, {7}, {9}},
                    Accumulate{{8, 9}, 10}};
  p.backward_begin = 7;
  return p;
}

class ReshardTest : public testing::TestWithParam<std::vector<MeshDim>> {};

void ExpectResharded(GangForTest& gang, const ShardedProgram& program) {
  const DeviceMesh& mesh = gang.mesh();
  gang.Run([&](int rank, Communicator& communicator) {
    const auto numbers =
        at::TensorOptions(communicator.device()).dtype(at::kFloat);
    const at::Tensor x = at::arange(25, numbers).view({5, 5}) / 7;
    at::Tensor w = (at::arange(25, numbers).view({5, 5}) - 9) / 5;
    const Extent rows = Chunk(5, mesh.dim_size(1), mesh.Coordinate(rank)[1]);
    const at::Tensor own = w.narrow(0, rows.offset, rows.size).clone();
    auto prepared = PreparedProgram::Create(
        program,
        {.coordinate = mesh.Coordinate(rank), .device = communicator.device()});
    ASSERT_THAT(prepared, IsOk());
    at::Tensor y;
    {
      const at::AutoGradMode grad(true);
      w.requires_grad_(true);
      y = x.mm(w);
      y.mm(w).sum().backward();
    }
    for (int i = 0; i < 2; ++i) {
      const auto result =
          (*prepared)->Run(RunMode::kTrain, {own}, {x}, communicator);
      ASSERT_THAT(result, IsOk());
      EXPECT_TRUE(result->outputs[0].equal(y));
      EXPECT_TRUE(result->gradients.at("w").allclose(w.grad()));
      EXPECT_EQ(result->forward.size(), 2);
      EXPECT_EQ(result->backward.size(), 1);
    }
  });
}

TEST_P(ReshardTest, WeightsGetTheirMemoryBack) {
  GangForTest gang(GetParam());
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  ExpectResharded(gang, Resharding(gang.mesh()));
}

// In a bucket each rank's rows are padded to as many: the weight is a part of
// what was gathered.
TEST_P(ReshardTest, PaddedWeightsGetTheirMemoryBack) {
  GangForTest gang(GetParam());
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  ShardedProgram program = Resharding(gang.mesh());
  program.instructions[0] =
      shardplane::Bucket{.kind = RedistributeKind::kAllGather,
                         .mesh_dim = 1,
                         .inputs = {1},
                         .outputs = {2},
                         .dims = {0}};
  ExpectResharded(gang, program);
}

// y = exp(x^T), whose sum is the loss, lies in memory as x does, and so it does
// when its memory comes back.
TEST_P(ReshardTest, ActivationsLieAsTheyDid) {
  GangForTest gang(GetParam());
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  const DeviceMesh& mesh = gang.mesh();
  ShardedProgram p;
  p.mesh = mesh;
  const DTensorSpec whole = DTensorSpec::Replicated(2);
  for (int i = 0; i < 8; ++i) {
    p.values.push_back({"", {DType::kFloat32, {4, 6}}, whole});
  }
  p.values[0].type.shape = p.values[6].type.shape = {6, 4};
  p.values[3].type.shape = p.values[4].type.shape = {};
  p.values[7].spec = {{Replicate{}, Shard{1}}, {}};
  p.inputs = {{.value = 0, .gradient = 6}};
  p.loss = 3;
  p.segments = {{.inputs = {0},
                 .outputs = {2},
                 .ops = {{"aten.t.default", {{ValueRef{0}}}, {}, {1}, ""},
                         {"aten.exp.default", {{ValueRef{1}}}, {}, {2}, ""}},
                 .differentiable_inputs = {0},
                 .differentiable_outputs = {2}},
                {.inputs = {2},
                 .outputs = {3},
                 .ops = {{"aten.sum.default", {{ValueRef{2}}}, {}, {3}, ""}},
                 .differentiable_inputs = {2},
                 .differentiable_outputs = {3}}};
  p.instructions = {RunSegment{0},
                    RunSegment{1},
                    Reshard{{2}, {7}, 1, 1},
                    Ones{4},
                    shardplane::Bucket{.kind = RedistributeKind::kAllGather,
                                       .mesh_dim = 1,
                                       .inputs = {7},
                                       .outputs = {2},
                                       .dims = {1},
                                       .again = true},
                    RunSegmentBackward{1, {4}, {5}},
                    RunSegmentBackward{0, {5}, {6}}};
  p.backward_begin = 3;
  gang.Run([&](int rank, Communicator& communicator) {
    const at::Tensor x =
        at::arange(24,
                   at::TensorOptions(communicator.device()).dtype(at::kFloat))
            .view({6, 4}) /
        24;
    auto prepared = PreparedProgram::Create(
        p,
        {.coordinate = mesh.Coordinate(rank), .device = communicator.device()});
    ASSERT_THAT(prepared, IsOk());
    RunTimeline timeline;
    const auto result =
        (*prepared)->Run(RunMode::kTrain, {}, {x}, communicator, {}, &timeline);
    ASSERT_THAT(result, IsOk());
    EXPECT_TRUE(result->input_gradients[0].equal(x.exp()));
    ASSERT_EQ(timeline.spans.size(), p.instructions.size());
    for (int i = 0; i < static_cast<int>(timeline.spans.size()); ++i) {
      const InstructionSpan& span = timeline.spans[i];
      EXPECT_EQ(span.instruction, i);
      if (i > 0) {
        EXPECT_GE(span.begin,
                  timeline.spans[i - 1].begin + timeline.spans[i - 1].duration);
      }
    }
  });
}

// What is cut must not be a part of something else.
TEST(ReshardedMemoryTest, IsNotShared) {
  GangForTest gang({{"dp", 1}, {"tp", 2}});
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  ShardedProgram p;
  p.mesh = gang.mesh();
  for (int i = 0; i < 3; ++i) {
    p.values.push_back(
        {"part", {DType::kFloat32, {2}}, DTensorSpec::Replicated(2)});
  }
  p.values[0].type.shape = {4};
  p.values[2].spec = {{Replicate{}, Shard{0}}, {}};
  p.inputs = {{.value = 0}};
  p.segments = {
      {.inputs = {0},
       .outputs = {1},
       .ops = {{"aten.narrow.default",
                {{ValueRef{0}}, {int64_t{0}}, {int64_t{1}}, {int64_t{2}}},
                {},
                {1},
                ""}}}};
  p.instructions = {RunSegment{0}, Reshard{{1}, {2}, 1, 0}};
  p.backward_begin = 2;
  gang.Run([&](int rank, Communicator& communicator) {
    auto prepared =
        PreparedProgram::Create(p, {.coordinate = gang.mesh().Coordinate(rank),
                                    .device = communicator.device()});
    ASSERT_THAT(prepared, IsOk());
    const at::Tensor x = at::ones(4, communicator.device());
    EXPECT_THAT((*prepared)->Run(RunMode::kForward, {}, {x}, communicator),
                StatusIs(absl::StatusCode::kInternal,
                         testing::HasSubstr("memory of its own")));
  });
}

// x w, summed over tp, and the sum of all that as loss.
ShardedProgram SummedLinear(const DeviceMesh& mesh) {
  ShardedProgram p;
  p.mesh = mesh;
  const std::vector<std::pair<const char*, Shape>> values = {
      {"x", {2, 3}},
      {"net.weight", {2, 3}},
      {"net", {2, 2}},
      {"net", {2, 2}},
      {"loss", {}},
      {"gradient of the loss", {}},
      {"gradient of net", {2, 2}},
      {"gradient of net.weight", {2, 3}}};
  for (const auto& [name, shape] : values) {
    p.values.push_back({name, {DType::kFloat32, shape}, {}});
    p.values.back().spec = DTensorSpec::Replicated(2);
  }
  p.values[2].spec = {{Replicate{}, Partial{}}, {}};
  p.inputs = {{.value = 0}};
  p.parameters = {{.fqn = "net.weight", .value = 1, .gradient = 7}};
  const auto ref = [](ValueId id) { return ProgramArgument{ValueRef{id}}; };
  p.segments = {
      {.inputs = {0, 1},
       .outputs = {2},
       .ops = {{"aten.linear.default", {ref(0), ref(1)}, {}, {2}, "net"}},
       .differentiable_inputs = {1},
       .differentiable_outputs = {2}},
      {.inputs = {3},
       .outputs = {4},
       .ops = {{"aten.sum.default", {ref(3)}, {}, {4}, "loss"}},
       .differentiable_inputs = {3},
       .differentiable_outputs = {4}}};
  p.loss = 4;
  p.instructions = {RunSegment{0},
                    Redistribute{.kind = RedistributeKind::kAllReduce,
                                 .mesh_dim = 1,
                                 .input = 2,
                                 .output = 3},
                    RunSegment{1},
                    Ones{5},
                    RunSegmentBackward{1, {5}, {6}},
                    RunSegmentBackward{0, {6}, {7}}};
  p.backward_begin = 3;
  return p;
}

// Runs it, which is to go as `ok` says, on the first of two ranks with names;
// the ranges that a profiler sees.
std::vector<std::string> RangesOf(const ShardedProgram& program, bool ok,
                                  GangForTest& gang) {
  NvtxRecorder recorder;
  NvtxDomain domain;
  gang.Run([&](int rank, Communicator& communicator) {
    auto prepared = PreparedProgram::Create(
        program, {.coordinate = gang.mesh().Coordinate(rank),
                  .device = communicator.device(),
                  .nvtx = rank == 0 ? &domain : nullptr});
    ASSERT_THAT(prepared, IsOk());
    const at::Tensor x = at::ones({2, 3}, communicator.device());
    try {
      const auto result =
          (*prepared)->Run(RunMode::kTrain, {x}, {x}, communicator);
      EXPECT_EQ(result.ok(), ok);
    } catch (const c10::Error&) {
      EXPECT_FALSE(ok);
    }
  });
  return recorder.TakeRanges();
}

TEST(ProfiledRunTest, NamesModulesAndCollectives) {
  GangForTest gang({{"dp", 1}, {"tp", 2}});
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  EXPECT_THAT(
      RangesOf(SummedLinear(gang.mesh()), /*ok=*/true, gang),
      ElementsAre("forward", "  net", "  all_reduce[tp, sum] net", "  loss",
                  "backward", "  backward of loss", "  backward of net"));
}

TEST(ProfiledRunTest, RangesEndWhereAnOperatorThrows) {
  GangForTest gang({{"dp", 1}, {"tp", 2}});
  if (TooFewGpus(gang.status(), gang.mesh().size())) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  ShardedProgram program = SummedLinear(gang.mesh());
  program.segments[1].ops = {{"aten.select.int",
                              {{ValueRef{3}}, {int64_t{0}}, {int64_t{7}}},
                              {},
                              {4},
                              "fails"}};
  EXPECT_THAT(
      RangesOf(program, /*ok=*/false, gang),
      ElementsAre("forward", "  net", "  all_reduce[tp, sum] net", "  fails"));
}

std::string NameOf(const testing::TestParamInfo<std::vector<MeshDim>>& info) {
  return "Dp" + std::to_string(info.param[0].size) + "Tp" +
         std::to_string(info.param[1].size);
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, BucketTest,
    testing::Values(std::vector<MeshDim>{{"dp", 1}, {"tp", 2}},
                    std::vector<MeshDim>{{"dp", 1}, {"tp", 3}},
                    std::vector<MeshDim>{{"dp", 2}, {"tp", 2}},
                    std::vector<MeshDim>{{"dp", 2}, {"tp", 1}}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Meshes, ReshardTest,
    testing::Values(std::vector<MeshDim>{{"dp", 1}, {"tp", 3}},
                    std::vector<MeshDim>{{"dp", 2}, {"tp", 2}}),
    NameOf);

TEST(BucketTest, IsOneCollectiveOfAllElements) {
  const ShardedProgram program =
      Bucket(*DeviceMesh::Create({{"dp", 2}, {"tp", 2}}), Parts());
  // 2 rows and 1 of 2, a scalar and 2 elements.
  EXPECT_THAT(Collectives(program, Phase::kForward, {0, 1}),
              ElementsAre(CollectiveRecord{RedistributeKind::kAllReduce, 1,
                                           DType::kFloat32, 7, 7}));
  EXPECT_THAT(Collectives(program, Phase::kForward, {1, 0}),
              ElementsAre(CollectiveRecord{RedistributeKind::kAllReduce, 1,
                                           DType::kFloat32, 5, 5}));
}

TEST(BucketTest, AlongASizeOfOneNothingRuns) {
  GangForTest gang({{"dp", 1}, {"tp", 1}});
  ASSERT_THAT(gang.status(), IsOk());
  const ShardedProgram program = Bucket(gang.mesh(), Parts());
  gang.Run([&](int, Communicator& communicator) {
    auto prepared = PreparedProgram::Create(
        program, {.coordinate = {0, 0}, .device = communicator.device()});
    ASSERT_THAT(prepared, IsOk());
    const auto result = (*prepared)->Run(
        RunMode::kForward, {}, InputsOf(program, {0, 0}, communicator.device()),
        communicator);
    ASSERT_THAT(result, IsOk());
    EXPECT_THAT(result->forward, IsEmpty());
  });
}

// A worker on a GPU keeps it on the host too: masks are drawn there.
TEST(RandomTest, IsMadeForEachRun) {
  ShardedProgram program;
  program.values = {
      {"random", {DType::kInt64, {2}}, DTensorSpec::Replicated(1)}};
  program.random = 0;
  program.outputs = {0};
  GangForTest gang({{"tp", 2}});
  if (TooFewGpus(gang.status(), 2)) GTEST_SKIP();
  ASSERT_THAT(gang.status(), IsOk());
  program.mesh = gang.mesh();
  gang.Run([&](int rank, Communicator& communicator) {
    auto prepared = PreparedProgram::Create(
        program, {.coordinate = {rank}, .device = communicator.device()});
    ASSERT_THAT(prepared, IsOk());
    const auto random = [&](RandomCounter counter) {
      auto result =
          (*prepared)->Run(RunMode::kForward, {}, {}, communicator, counter);
      EXPECT_THAT(result, IsOk());
      return result->outputs.at(0);
    };
    EXPECT_TRUE(
        random({.seed = 5, .step = 6}).equal(at::tensor({5, 6}, at::kLong)));
    EXPECT_TRUE(random({.seed = ~uint64_t{0}, .step = 7})
                    .equal(at::tensor({-1, 7}, at::kLong)));
  });
}

}  // namespace
}  // namespace shardplane
