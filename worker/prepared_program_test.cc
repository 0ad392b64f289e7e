#include "worker/prepared_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/gang_for_test.h"

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
  AllReduceBucket bucket{.mesh_dim = 1};
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

INSTANTIATE_TEST_SUITE_P(
    Meshes, BucketTest,
    testing::Values(std::vector<MeshDim>{{"dp", 1}, {"tp", 2}},
                    std::vector<MeshDim>{{"dp", 1}, {"tp", 3}},
                    std::vector<MeshDim>{{"dp", 2}, {"tp", 2}},
                    std::vector<MeshDim>{{"dp", 2}, {"tp", 1}}),
    [](const auto& info) {
      return "Dp" + std::to_string(info.param[0].size) + "Tp" +
             std::to_string(info.param[1].size);
    });

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
