#include "worker/torch_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <thread>

#include "worker/fake_gang_store.h"

namespace shardplane {
namespace {

HostTensor F32(Shape shape, const std::vector<float>& values) {
  HostTensor tensor{{DType::kFloat32, std::move(shape)}, {}};
  tensor.bytes.resize(values.size() * sizeof(float));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

std::vector<float> Floats(const HostTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

ProgramArgument Ref(ValueId id) { return {ValueRef{id}}; }

// y = x w1^T w2^T, loss = sum(y), on [tp=2]: w1 f32[3, 2] is cut S(0) into 2
// rows and 1, w2 f32[2, 3] S(1); y is Partial and reduced.
ShardedProgram TwoLinears() {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  const DTensorSpec r{{Replicate{}}, {}};
  const DTensorSpec s0{{Shard{0}}, {}};
  const DTensorSpec s1{{Shard{1}}, {}};
  const DTensorSpec p{{Partial{}}, {}};
  const auto value = [&](const char* name, Shape shape, DTensorSpec spec) {
    program.values.push_back({name, {DType::kFloat32, shape}, spec});
    return static_cast<ValueId>(program.values.size()) - 1;
  };
  const ValueId x = value("x", {1, 2}, r);
  const ValueId w1 = value("w1", {3, 2}, s0);
  const ValueId w2 = value("w2", {2, 3}, s1);
  const ValueId h = value("h", {1, 3}, s1);
  const ValueId part = value("part", {1, 2}, p);
  const ValueId y = value("y", {1, 2}, r);
  const ValueId loss = value("loss", {}, r);
  const ValueId g_loss = value("g_loss", {}, r);
  const ValueId g_y = value("g_y", {1, 2}, r);
  const ValueId g_x_part = value("g_x_part", {1, 2}, p);
  const ValueId g_w1 = value("g_w1", {3, 2}, s0);
  const ValueId g_w2 = value("g_w2", {2, 3}, s1);
  const ValueId g_x = value("g_x", {1, 2}, r);
  program.segments = {
      {.inputs = {x, w1, w2},
       .outputs = {part},
       .ops = {{"aten.linear.default", {Ref(x), Ref(w1)}, {}, {h}, "net1"},
               {"aten.linear.default", {Ref(h), Ref(w2)}, {}, {part}, "net2"}},
       .differentiable_inputs = {x, w1, w2},
       .differentiable_outputs = {part}},
      {.inputs = {y},
       .outputs = {loss},
       .ops = {{"aten.sum.default", {Ref(y)}, {}, {loss}, ""}},
       .differentiable_inputs = {y},
       .differentiable_outputs = {loss}}};
  program.parameters = {{"net1.weight", w1, g_w1}, {"net2.weight", w2, g_w2}};
  program.inputs = {{x, g_x}};
  program.outputs = {y};
  program.loss = loss;
  program.instructions = {
      RunSegment{0},
      Redistribute{.kind = RedistributeKind::kAllReduce,
                   .mesh_dim = 0,
                   .input = part,
                   .output = y},
      RunSegment{1},
      Ones{g_loss},
      RunSegmentBackward{1, {g_loss}, {g_y}},
      RunSegmentBackward{0, {g_y}, {g_x_part, g_w1, g_w2}},
      Redistribute{.kind = RedistributeKind::kAllReduce,
                   .mesh_dim = 0,
                   .input = g_x_part,
                   .output = g_x}};
  program.backward_begin = 3;
  return program;
}

MaterializeSpec TwoWeights() {
  return {.parameters = {{.fqn = "net1.weight",
                          .type = {DType::kFloat32, {3, 2}},
                          .spec = {{Shard{0}}, {}},
                          .requires_grad = true},
                         {.fqn = "net2.weight",
                          .type = {DType::kFloat32, {2, 3}},
                          .spec = {{Shard{1}}, {}},
                          .requires_grad = true}},
          .src_data_rank = 1};
}

// Ranks that are threads, each with an executor of its own.
class TorchExecutorTest : public testing::Test {
 protected:
  TorchExecutorTest() {
    for (int rank = 0; rank < 2; ++rank) {
      executors_.push_back(*MakeTorchExecutor({.threads = 1}));
    }
    InParallel([&](int rank) {
      EXPECT_EQ(executors_[rank]->JoinGang(
                    {.deployment = "deployments/d",
                     .epoch = 1,
                     .rank = rank,
                     .mesh = *DeviceMesh::Create({{"tp", 2}})},
                    store_),
                absl::OkStatus());
    });
  }

  void InParallel(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) threads.emplace_back(body, rank);
    for (std::thread& thread : threads) thread.join();
  }

  void Materialize() {
    Executor& source = *executors_[1];
    ASSERT_TRUE(source
                    .Stage("parameter:net1.weight",
                           F32({3, 2}, {1, 2, 3, 4, 5, 6}))
                    .ok());
    ASSERT_TRUE(source
                    .Stage("parameter:net2.weight",
                           F32({2, 3}, {1, 0, 1, 0, 1, 2}))
                    .ok());
    InParallel([&](int rank) {
      const auto ran = executors_[rank]->Materialize(TwoWeights());
      ASSERT_EQ(ran.status(), absl::OkStatus());
      EXPECT_THAT(ran->counts,
                  testing::ElementsAre(
                      CollectiveCount{"materialize", "scatter", 2, 64}));
    });
  }

  void Load() {
    InParallel([&](int rank) {
      EXPECT_EQ(executors_[rank]->LoadProgram("p", TwoLinears()),
                absl::OkStatus());
    });
  }

  RunResult Run(RunMode mode, bool accumulate = false) {
    RunResult results[2];
    InParallel([&](int rank) {
      ASSERT_TRUE(
          executors_[rank]->Stage("upload:x", F32({1, 2}, {1, 10})).ok());
      auto result = executors_[rank]->Run({.program = "p",
                                           .mode = mode,
                                           .inputs = {"upload:x"},
                                           .accumulate = accumulate});
      ASSERT_EQ(result.status(), absl::OkStatus());
      results[rank] = *result;
    });
    return results[0];
  }

  std::vector<float> Read(int rank, const TensorKey& key) {
    auto tensor = executors_[rank]->Read(key);
    EXPECT_EQ(tensor.status(), absl::OkStatus());
    return tensor.ok() ? Floats(tensor->local) : std::vector<float>();
  }

  std::shared_ptr<FakeGangStore> store_ = std::make_shared<FakeGangStore>();
  std::vector<std::unique_ptr<Executor>> executors_;
};

using testing::ElementsAre;

TEST_F(TorchExecutorTest, ScattersParametersFromTheSourceRank) {
  Materialize();
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  EXPECT_THAT(Read(0, ParameterKey{"net2.weight"}), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(Read(1, ParameterKey{"net2.weight"}), ElementsAre(1, 2));
}

TEST_F(TorchExecutorTest, RunsForwardAndBackward) {
  Materialize();
  Load();
  const RunResult result = Run(RunMode::kTrain);
  // h = (21, 43, 65); y = (21 + 65, 43 + 130).
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Read(1, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Floats(*result.loss), ElementsAre(259));
  EXPECT_THAT(Read(0, GradientKey{"net2.weight"}),
              ElementsAre(21, 43, 21, 43));
  EXPECT_THAT(Read(1, GradientKey{"net2.weight"}), ElementsAre(65, 65));
  // dy/dh = column sums of w2 = (1, 1, 3); times x = (1, 10).
  EXPECT_THAT(Read(0, GradientKey{"net1.weight"}), ElementsAre(1, 10, 1, 10));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
  // (1, 1, 3) w1 = (1 + 3 + 15, 2 + 4 + 18), on every rank.
  EXPECT_THAT(Read(1, InputGradientKey{0}), ElementsAre(19, 24));
}

TEST_F(TorchExecutorTest, RanCollectivesAreThoseOfTheProgram) {
  Materialize();
  Load();
  const RunResult result = Run(RunMode::kTrain);
  const ShardedProgram program = TwoLinears();
  EXPECT_EQ(result.ran.hash,
            HashCollectives(Collectives(program, Phase::kBackward, {0}),
                            HashCollectives(Collectives(
                                program, Phase::kForward, {0}))));
  EXPECT_THAT(result.ran.counts,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 8},
                          CollectiveCount{"backward", "all_reduce", 1, 8}));
}

}  // namespace
}  // namespace shardplane
