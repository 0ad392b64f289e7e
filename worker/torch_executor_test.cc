#include "worker/torch_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "common/dropout_mask.h"
#include "common/gradient_norm.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/fake_gang_store.h"
#include "worker/programs_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;
using testing::HasSubstr;
using testing::IsEmpty;

// Ranks that are threads, each with an executor of its own on DeviceForTest.
class TorchExecutorTest : public testing::Test {
 protected:
  void SetUp() override { Form(*DeviceMesh::Create({{"tp", 2}})); }

  // Skips the test where this machine has too few GPUs for it.
  void Form(const DeviceMesh& mesh) {
    mesh_ = mesh;
    ++epoch_;
    auto store = std::make_shared<FakeGangStore>();
    while (static_cast<int>(executors_.size()) < mesh.size()) {
      const int rank = static_cast<int>(executors_.size());
      executors_.push_back(
          *MakeTorchExecutor({.device = DeviceForTest(rank), .threads = 1}));
    }
    std::vector<absl::Status> formed(mesh.size());
    ForEachRank([&](int rank) {
      formed[rank] = executors_[rank]->JoinGang({.deployment = "deployments/d",
                                                 .epoch = epoch_,
                                                 .rank = rank,
                                                 .mesh = mesh},
                                                store);
    });
    if (TooFewGpus(formed[0], mesh.size())) GTEST_SKIP() << formed[0];
    EXPECT_THAT(formed, Each(IsOk()));
  }

  void ForEachRank(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      threads.emplace_back(body, rank);
    }
    for (std::thread& thread : threads) thread.join();
  }

  // net1 and net2 of TwoLinears, from rank 1.
  void Materialize() {
    StageOn(1, "parameter:net1.weight", F32({3, 2}, {1, 2, 3, 4, 5, 6}));
    StageOn(1, "parameter:net2.weight", F32({2, 3}, {1, 0, 1, 0, 1, 2}));
    ForEachRank([&](int rank) {
      const auto ran = executors_[rank]->Materialize(TwoWeights());
      ASSERT_THAT(ran, IsOk());
      EXPECT_THAT(ran->counts, ElementsAre(CollectiveCount{"materialize",
                                                           "scatter", 2, 64}));
    });
  }

  void Load(const ShardedProgram& program) {
    ForEachRank([&](int rank) {
      EXPECT_THAT(executors_[rank]->LoadProgram("p", program), IsOk());
    });
  }

  void StageOn(int rank, const std::string& key, const HostTensor& tensor) {
    ASSERT_THAT(executors_[rank]->Stage(key, tensor), IsOk());
  }

  // Runs "p" on one input, everywhere. Rank 0's result.
  RunResult Run(RunMode mode, const HostTensor& x, bool accumulate = false) {
    return Run({.program = "p",
                .mode = mode,
                .inputs = {"upload:x"},
                .accumulate = accumulate},
               x);
  }
  RunResult Run(const RunSpec& spec, const HostTensor& x) {
    std::vector<RunResult> results(mesh_.size());
    ForEachRank([&](int rank) {
      StageOn(rank, "upload:x", x);
      auto result = executors_[rank]->Run(spec);
      ASSERT_THAT(result, IsOk());
      results[rank] = *result;
    });
    for (const RunResult& result : results) {
      EXPECT_EQ(result.gradient_norm, results[0].gradient_norm);
    }
    return results[0];
  }
  RunResult TrainWithNorm(bool accumulate = false) {
    return Run({.program = "p",
                .mode = RunMode::kTrain,
                .inputs = {"upload:x"},
                .accumulate = accumulate,
                .gradient_norm = true},
               F32({1, 2}, {1, 10}));
  }
  RunResult Norm() {
    return Run({.mode = RunMode::kNorm}, F32({1, 2}, {1, 10}));
  }
  RunResult Train(bool accumulate = false) {
    return Run(RunMode::kTrain, F32({1, 2}, {1, 10}), accumulate);
  }
  void Commit(const std::optional<Hyperparameters>& values,
              std::optional<double> clip_norm = std::nullopt) {
    for (const auto& executor : executors_) {
      ASSERT_THAT(CommitOn(*executor, values, clip_norm), IsOk());
    }
  }
  static absl::Status CommitOn(Executor& executor,
                               const std::optional<Hyperparameters>& values,
                               std::optional<double> clip_norm = std::nullopt) {
    std::optional<OptimizerOptions> optimizer;
    if (values.has_value()) optimizer = OptimizerOptions{.values = *values};
    return executor.Commit(optimizer, clip_norm);
  }

  std::vector<float> Read(int rank, const TensorKey& key) {
    auto tensor = executors_[rank]->Read(key);
    EXPECT_THAT(tensor, IsOk());
    return tensor.ok() ? Floats(tensor->local) : std::vector<float>();
  }

  DeviceMesh mesh_;
  uint64_t epoch_ = 0;
  std::vector<std::unique_ptr<Executor>> executors_;
};

TEST_F(TorchExecutorTest, ScattersParametersFromTheSourceRank) {
  Materialize();
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  EXPECT_THAT(Read(0, ParameterKey{"net2.weight"}), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(Read(1, ParameterKey{"net2.weight"}), ElementsAre(1, 2));
}

TEST_F(TorchExecutorTest, WithoutASourceRankEachCutsItsOwn) {
  MaterializeSpec spec = TwoWeights();
  spec.src_data_rank.reset();
  spec.parameters.resize(1);
  for (int rank = 0; rank < 2; ++rank) {
    const float base = 10.0f * static_cast<float>(rank);
    StageOn(rank, "parameter:net1.weight",
            F32({3, 2}, {base, base, base, base, base + 5, base + 6}));
    const auto ran = executors_[rank]->Materialize(spec);
    ASSERT_THAT(ran, IsOk());
    EXPECT_THAT(ran->counts, IsEmpty());
  }
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(15, 16));
}

TEST_F(TorchExecutorTest, MaterializesOverTwoMeshDims) {
  Form(*DeviceMesh::Create({{"dp", 2}, {"tp", 2}}));
  if (IsSkipped()) return;
  // Rank 1 is dp 0, tp 1: it has the data.
  StageOn(1, "parameter:w", F32({3}, {1, 2, 3}));
  StageOn(1, "parameter:both", F32({3}, {1, 2, 3}));
  StageOn(1, "parameter:r", F32({1}, {9}));
  const MaterializeSpec spec{
      .parameters = {{.fqn = "w",
                      .type = {DType::kFloat32, {3}},
                      .spec = {{Replicate{}, Shard{0}}, {}}},
                     {.fqn = "both",
                      .type = {DType::kFloat32, {3}},
                      .spec = {{Shard{0}, Shard{0}}, {1, 0}}},
                     {.fqn = "r",
                      .type = {DType::kFloat32, {1}},
                      .spec = {{Replicate{}, Replicate{}}, {}}},
                     {.fqn = "zero",
                      .type = {DType::kFloat32, {3}},
                      .spec = {{Replicate{}, Shard{0}}, {}},
                      .initializer = Initializer{Initializer::Kind::kOnes}}},
      .plan_mesh_dim = 1,
      .src_data_rank = 1};
  ForEachRank([&](int rank) {
    ASSERT_THAT(executors_[rank]->Materialize(spec), IsOk());
  });
  EXPECT_THAT(Read(0, ParameterKey{"w"}), ElementsAre(1, 2));
  EXPECT_THAT(Read(3, ParameterKey{"w"}), ElementsAre(3));
  // tp cuts first, into 2 and 1; dp within.
  EXPECT_THAT(Read(0, ParameterKey{"both"}), ElementsAre(1));
  EXPECT_THAT(Read(2, ParameterKey{"both"}), ElementsAre(2));
  EXPECT_THAT(Read(1, ParameterKey{"both"}), ElementsAre(3));
  EXPECT_THAT(Read(3, ParameterKey{"both"}), IsEmpty());
  EXPECT_THAT(Read(2, ParameterKey{"r"}), ElementsAre(9));
  EXPECT_THAT(Read(1, ParameterKey{"zero"}), ElementsAre(1));
}

TEST_F(TorchExecutorTest, MaterializeErrorsNameTheParameter) {
  MaterializeSpec spec = TwoWeights();
  spec.src_data_rank.reset();
  EXPECT_THAT(executors_[0]->Materialize(spec),
              StatusIs(StatusCode::kNotFound, HasSubstr("net1.weight")));
  StageOn(0, "parameter:net1.weight", F32({2, 2}, {1, 2, 3, 4}));
  EXPECT_THAT(
      executors_[0]->Materialize(spec),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("net1.weight"), HasSubstr("got: f32[2, 2]"))));
  spec.src_data_rank = 2;
  EXPECT_THAT(executors_[0]->Materialize(spec),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("got: 2")));
}

TEST_F(TorchExecutorTest, RunsForwardAndBackward) {
  Materialize();
  Load(TwoLinears());
  const RunResult result = Train();
  // h = (21, 43, 65); y = (21 + 65, 43 + 130).
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Read(1, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Floats(*result.loss), ElementsAre(259));
  EXPECT_THAT(Read(0, GradientKey{"net2.weight"}), ElementsAre(21, 43, 21, 43));
  EXPECT_THAT(Read(1, GradientKey{"net2.weight"}), ElementsAre(65, 65));
  // dy/dh = column sums of w2 = (1, 1, 3); times x = (1, 10).
  EXPECT_THAT(Read(0, GradientKey{"net1.weight"}), ElementsAre(1, 10, 1, 10));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
  // (1, 1, 3) w1 = (1 + 3 + 15, 2 + 4 + 18), on every rank.
  EXPECT_THAT(Read(1, InputGradientKey{0}), ElementsAre(19, 24));
}

TEST_F(TorchExecutorTest, RanCollectivesAreThoseOfTheProgram) {
  Materialize();
  Load(TwoLinears());
  const RunResult result = Train();
  EXPECT_EQ(result.ran.hash, HashOf(TwoLinears(), {0}));
  EXPECT_THAT(result.ran.counts,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 8},
                          CollectiveCount{"backward", "all_reduce", 1, 8}));
}

TEST_F(TorchExecutorTest, ForwardAloneHasNoLossAndLeavesGradients) {
  Materialize();
  Load(TwoLinears());
  Train();
  Commit(std::nullopt);
  const RunResult result = Run(RunMode::kForward, F32({1, 2}, {0, 1}));
  EXPECT_FALSE(result.loss.has_value());
  EXPECT_THAT(result.ran.counts,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 8}));
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(2 + 6, 4 + 12));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
}

TEST_F(TorchExecutorTest, CommitUpdatesAndKeepsTheGradients) {
  Materialize();
  Load(TwoLinears());
  Train();
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  Commit(SgdOptions{.lr = 0.5});
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(3.5, -9));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
  Commit(SgdOptions{.lr = 0.5});  // an update alone: the same gradients
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(2, -24));
}

// Twice the mask of each rank's rows.
std::vector<float> MaskedOnes(uint64_t seed, uint64_t step, Extent rows) {
  std::vector<uint8_t> keep(4 * rows.size);
  EXPECT_THAT(DropoutMask({.seed = seed, .step = step, .node = 9}, 0.5, {5, 4},
                          {rows, {0, 4}}, absl::MakeSpan(keep)),
              IsOk());
  std::vector<float> ones(keep.begin(), keep.end());
  for (float& one : ones) one *= 2;
  return ones;
}

TEST_F(TorchExecutorTest, MasksFollowFromTheSeedAndTheStep) {
  Form(RandomHalf().mesh);
  if (IsSkipped()) return;
  const uint64_t seed = ~uint64_t{4};
  ForEachRank([&](int rank) {
    ASSERT_THAT(executors_[rank]->Materialize({.seed = seed}), IsOk());
  });
  Load(RandomHalf());
  const HostTensor ones = F32({5, 4}, std::vector<float>(20, 1));
  for (const uint64_t step : {7, 8, 7}) {
    for (const RunMode mode : {RunMode::kForward, RunMode::kTrain}) {
      Run({.program = "p",
           .mode = mode,
           .inputs = {"upload:x"},
           .random_step = step},
          ones);
      for (int rank = 0; rank < 3; ++rank) {
        const std::vector<float> masked =
            MaskedOnes(seed, step, Chunk(5, 3, rank));
        EXPECT_EQ(Read(rank, OutputKey{0}), masked);
        if (mode == RunMode::kTrain) {
          EXPECT_EQ(Read(rank, InputGradientKey{0}), masked);
        }
      }
    }
  }
}

// The squares of both gradients, of both ranks:
// 1 + 100 + 1 + 100 + 9 + 900, and 2 (21^2 + 43^2 + 65^2).
constexpr double kSquares = 1111 + 13030;

TEST_F(TorchExecutorTest, NormIsOverAllRanks) {
  Materialize();
  Load(TwoLinears());
  const RunResult result = TrainWithNorm();
  EXPECT_DOUBLE_EQ(result.gradient_norm, std::sqrt(kSquares));
  EXPECT_THAT(result.ran.counts,
              ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 8},
                          CollectiveCount{"backward", "all_reduce", 1, 8},
                          CollectiveCount{"optimizer", "all_reduce", 1, 8}));
  EXPECT_EQ(result.ran.hash,
            HashCollectives(NormCollectives(mesh_), HashOf(TwoLinears(), {0})));
  EXPECT_EQ(Train().gradient_norm, 0) << "only where it is asked for";
}

TEST_F(TorchExecutorTest, ClippingScalesTheUpdateAndNotTheGradients) {
  Materialize();
  Load(TwoLinears());
  const double half = std::sqrt(kSquares) / 2;
  TrainWithNorm();
  Commit(SgdOptions{.lr = 0.5}, half);
  // 5 - 0.5 * 0.5 * 3, 6 - 0.5 * 0.5 * 30
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}),
              ElementsAre(FloatEq(4.25), FloatEq(-1.5)));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
}

TEST_F(TorchExecutorTest, NormBelowTheLimitChangesNothing) {
  Materialize();
  Load(TwoLinears());
  TrainWithNorm();
  Commit(SgdOptions{.lr = 0.5}, 1000);
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(3.5, -9));
}

TEST_F(TorchExecutorTest, NormIsOfWhatCommitFinds) {
  Materialize();
  Load(TwoLinears());
  Train();
  Commit(std::nullopt);
  EXPECT_DOUBLE_EQ(TrainWithNorm(/*accumulate=*/true).gradient_norm,
                   2 * std::sqrt(kSquares));
  Commit(std::nullopt);
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(6, 60));
  const RunResult alone = Norm();
  EXPECT_DOUBLE_EQ(alone.gradient_norm, 2 * std::sqrt(kSquares));
  EXPECT_EQ(alone.ran.hash, HashCollectives(NormCollectives(mesh_)));
  EXPECT_FALSE(alone.loss.has_value());
  // The last call's output is still there.
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  // A discarded run leaves what was there.
  TrainWithNorm(/*accumulate=*/true);
  for (const auto& executor : executors_) {
    ASSERT_THAT(executor->Discard(), IsOk());
  }
  EXPECT_DOUBLE_EQ(Norm().gradient_norm, 2 * std::sqrt(kSquares));
}

TEST_F(TorchExecutorTest, ClippingNeedsTheNorm) {
  Materialize();
  Load(TwoLinears());
  Train();
  EXPECT_THAT(
      CommitOn(*executors_[1], SgdOptions{.lr = 0.5}, 1.0),
      AllOf(StatusIs(StatusCode::kFailedPrecondition, HasSubstr("clip_norm")),
            HasReason("NO_GRADIENT_NORM")));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  TrainWithNorm();
  Commit(std::nullopt);
  EXPECT_THAT(CommitOn(*executors_[1], SgdOptions{.lr = 0.5}, 1.0),
              HasReason("NO_GRADIENT_NORM"));
}

TEST_F(TorchExecutorTest, AnotherKindOfOptimizerChangesNothing) {
  Materialize();
  Load(TwoLinears());
  Train();
  Commit(SgdOptions{.lr = 0.5});
  Run(RunMode::kTrain, F32({1, 2}, {0, 0}));
  for (const auto& executor : executors_) {
    EXPECT_THAT(CommitOn(*executor, AdamOptions{.lr = 1}),
                AllOf(StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("expected SGD")),
                      HasReason("OPTIMIZER_KIND_DIFFERS")));
    ASSERT_THAT(executor->Discard(), IsOk());
  }
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(3.5, -9));
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
  for (const auto& executor : executors_) {
    ASSERT_THAT(executor->ResetOptimizer(), IsOk());
  }
  Commit(AdamOptions{.lr = 1, .eps = 0});  // its first step is the sign
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}),
              ElementsAre(FloatEq(2.5), FloatEq(-10)));
}

TEST_F(TorchExecutorTest, AccumulateAddsAtCommit) {
  Materialize();
  Load(TwoLinears());
  Train();
  Commit(std::nullopt);
  Train(/*accumulate=*/true);
  Commit(std::nullopt);
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(6, 60));
  Train();
  Commit(std::nullopt);
  EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
}

TEST_F(TorchExecutorTest, DiscardedGradientsAreGone) {
  Materialize();
  Load(TwoLinears());
  Train();
  for (const auto& executor : executors_) {
    ASSERT_THAT(executor->Discard(), IsOk());
  }
  EXPECT_THAT(executors_[0]->Read(GradientKey{"net1.weight"}),
              StatusIs(StatusCode::kNotFound, HasSubstr("net1.weight")));
  Commit(SgdOptions{.lr = 0.5});
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
}

TEST_F(TorchExecutorTest, LoadsAllOrNothing) {
  Materialize();
  Executor& executor = *executors_[1];
  StageOn(1, "upload:a", F32({3, 2}, {0, 0, 0, 0, 7, 8}));
  StageOn(1, "upload:b", F32({2, 2}, {0, 0, 0, 0}));
  EXPECT_THAT(
      executor.LoadState(
          {{{"net1.weight", "upload:a"}, {"net2.weight", "upload:b"}}}),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("net2.weight"), HasSubstr("got: f32[2, 2]"))));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  StageOn(1, "upload:a", F32({3, 2}, {0, 0, 0, 0, 7, 8}));
  EXPECT_THAT(executor.LoadState({{{"net1.weight", "upload:a"}}}), IsOk());
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(7, 8));
}

TEST_F(TorchExecutorTest, EveryRedistributionFindsItsWayBack) {
  Form(*DeviceMesh::Create({{"dp", 2}, {"tp", 3}}));
  if (IsSkipped()) return;
  const ShardedProgram program = RoundTrip(mesh_);
  ForEachRank([&](int rank) {
    EXPECT_THAT(executors_[rank]->Materialize({}), IsOk());
  });
  Load(program);
  std::vector<float> x(5 * 7);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i);
  const RunResult result = Run(RunMode::kForward, F32({5, 7}, x));
  for (int rank = 0; rank < mesh_.size(); ++rank) {
    EXPECT_EQ(Read(rank, OutputKey{0}), x) << "rank " << rank;
  }
  EXPECT_EQ(result.ran.hash, HashOf(program, {0, 0}));
}

TEST_F(TorchExecutorTest, PartialInputLiesWholeOnTheFirstRank) {
  ShardedProgram program;
  program.mesh = mesh_;
  program.values = {{"x", {DType::kFloat32, {2}}, {{Partial{}}, {}}},
                    {"y", {DType::kFloat32, {2}}, {{Replicate{}}, {}}}};
  program.inputs = {{.value = 0}};
  program.outputs = {0, 1};
  program.instructions = {Redistribute{
      .kind = RedistributeKind::kAllReduce, .input = 0, .output = 1}};
  program.backward_begin = 1;
  ForEachRank([&](int rank) {
    EXPECT_THAT(executors_[rank]->Materialize({}), IsOk());
  });
  Load(program);
  Run(RunMode::kForward, F32({2}, {3, 4}));
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(3, 4));
  EXPECT_THAT(Read(1, OutputKey{0}), ElementsAre(0, 0));
  EXPECT_THAT(Read(1, OutputKey{1}), ElementsAre(3, 4));
}

TEST_F(TorchExecutorTest, RunErrorsSayWhatIsMissing) {
  Executor& executor = *executors_[0];
  EXPECT_THAT(executor.Run({.program = "p"}), HasReason("NOT_MATERIALIZED"));
  Materialize();
  EXPECT_THAT(executor.Run({.program = "p"}),
              StatusIs(StatusCode::kNotFound, HasSubstr("got: p")));
  Load(TwoLinears());
  EXPECT_THAT(executor.Run({.program = "p", .inputs = {"upload:x"}}),
              StatusIs(StatusCode::kNotFound, HasSubstr("upload:x")));
  EXPECT_THAT(executor.Run({.program = "p"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("got: 0")));
  StageOn(0, "upload:x", F32({2}, {1, 2}));
  EXPECT_THAT(executor.Run({.program = "p", .inputs = {"upload:x"}}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("expected f32[1, 2], got: f32[2]")));
  EXPECT_THAT(executor.Read(OutputKey{3}),
              StatusIs(StatusCode::kNotFound, HasSubstr("output 3")));
  EXPECT_THAT(executor.Read(ParameterKey{"nope"}),
              StatusIs(StatusCode::kNotFound, HasSubstr("nope")));
}

TEST_F(TorchExecutorTest, ProgramOfAnotherMeshIsRefused) {
  ShardedProgram program = TwoLinears();
  program.mesh = *DeviceMesh::Create({{"tp", 4}});
  EXPECT_THAT(executors_[0]->LoadProgram("p", program),
              HasReason("MESH_DIFFERS"));
}

TEST_F(TorchExecutorTest, LostPeerBreaksTheGangUntilItIsFormedAgain) {
  Materialize();
  Load(TwoLinears());
  // Rank 1 is gone in the middle of a step.
  StageOn(0, "upload:x", F32({1, 2}, {1, 10}));
  absl::StatusOr<RunResult> result;
  std::thread survivor([&] {
    result = executors_[0]->Run({.program = "p", .inputs = {"upload:x"}});
  });
  ASSERT_THAT(executors_[1]->LeaveGang(), IsOk());
  survivor.join();
  EXPECT_THAT(result, StatusIs(StatusCode::kUnavailable,
                               HasSubstr("mesh dim tp at rank 0")));
  EXPECT_THAT(executors_[0]->Run({.program = "p"}), HasReason("GANG_BROKEN"));
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(executors_[1]->Read(ParameterKey{"net1.weight"}),
              HasReason("NO_GANG"));
  // The survivor keeps its shards in the deployment's next epoch.
  Form(*DeviceMesh::Create({{"tp", 2}}));
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}), ElementsAre(1, 2, 3, 4));
}

TEST_F(TorchExecutorTest, AbortEndsARunThatWaits) {
  Materialize();
  Load(TwoLinears());
  StageOn(0, "upload:x", F32({1, 2}, {1, 10}));
  absl::StatusOr<RunResult> result;
  std::thread waiting([&] {
    result = executors_[0]->Run({.program = "p", .inputs = {"upload:x"}});
  });
  executors_[0]->Abort("rank 1 is lost");
  waiting.join();
  EXPECT_THAT(result, StatusIs(StatusCode::kUnavailable, testing::_));
}

// One rank needs no other, and so runs on any one GPU.
class OneRankExecutorTest : public TorchExecutorTest {
 protected:
  void SetUp() override { Form(*DeviceMesh::Create({{"tp", 1}})); }
};

TEST_F(OneRankExecutorTest, TrainsOnTheDeviceThatItHas) {
  MaterializeSpec spec = TwoWeights();
  spec.src_data_rank.reset();
  StageOn(0, "parameter:net1.weight", F32({3, 2}, {1, 2, 3, 4, 5, 6}));
  StageOn(0, "parameter:net2.weight", F32({2, 3}, {1, 0, 1, 0, 1, 2}));
  ASSERT_THAT(executors_[0]->Materialize(spec), IsOk());
  ShardedProgram program = TwoLinears();
  program.mesh = mesh_;
  Load(program);
  const RunResult result = TrainWithNorm();
  EXPECT_THAT(result.ran.counts, IsEmpty());
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Floats(*result.loss), ElementsAre(259));
  EXPECT_THAT(Read(0, GradientKey{"net1.weight"}),
              ElementsAre(1, 10, 1, 10, 3, 30));
  EXPECT_NEAR(result.gradient_norm,
              std::sqrt(1 + 100 + 1 + 100 + 9 + 900 +
                        2 * (21 * 21 + 43 * 43 + 65 * 65)),
              1e-4);
  Commit(SgdOptions{.lr = 0.5});
  EXPECT_THAT(Read(0, ParameterKey{"net1.weight"}),
              ElementsAre(0.5, -3, 2.5, -1, 3.5, -9));
}

TEST(MakeTorchExecutorTest, RefusesAnUnknownDevice) {
  EXPECT_THAT(MakeTorchExecutor({.device = "abacus"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("abacus")));
}

}  // namespace
}  // namespace shardplane
