// Commit: gradients that become current, norms, clipping, optimizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "common/gradient_norm.h"
#include "tests/matchers.h"
#include "worker/programs_for_test.h"
#include "worker/torch_executor_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::FloatEq;
using testing::HasSubstr;

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

// Of weights whose gradients may be left as products; small integers, so that
// every sum is exact.
class WeightProductTest : public TorchExecutorTest {
 protected:
  void SetUp() override {
    TorchExecutorTest::SetUp();
    StageOn(1, "parameter:net1.weight", F32({512, 1024}, Pattern(512 * 1024)));
    StageOn(1, "parameter:net2.weight", F32({1024, 512}, Pattern(512 * 1024)));
    TorchExecutorTest::Materialize(TwoWeights(512, 1024), testing::_);
    Load(WideLinears());
  }
  static std::vector<float> Pattern(int size) {
    std::vector<float> values(size);
    for (int i = 0; i < size; ++i) values[i] = static_cast<float>(i % 7 - 3);
    return values;
  }
  RunResult Train(bool keep_products, bool accumulate = false) {
    return Run({.program = "p",
                .mode = RunMode::kTrain,
                .inputs = {"upload:x"},
                .accumulate = accumulate,
                .keep_products = keep_products},
               F32({1, 1024}, Pattern(1024)));
  }
  static std::vector<float> Sum(std::vector<float> a, float scale,
                                const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += scale * b[i];
    return a;
  }
  const GradientKey gradient_{"net1.weight"};
  const ParameterKey weight_{"net1.weight"};
};

TEST_F(WeightProductTest, UpdatesWithoutMakingThem) {
  Train(/*keep_products=*/false);
  const std::vector<float> gradient = Read(1, gradient_);
  const std::vector<float> before = Read(1, weight_);
  Train(/*keep_products=*/true);
  EXPECT_EQ(Read(1, gradient_), gradient) << "pending";
  Commit(SgdOptions{.lr = 0.5});
  EXPECT_EQ(Read(1, weight_), Sum(before, -0.5, gradient));
  EXPECT_EQ(Read(1, gradient_), gradient);
  Commit(SgdOptions{.lr = 0.5});  // an update alone: the same gradients
  EXPECT_EQ(Read(1, weight_), Sum(before, -1, gradient));
}

TEST_F(WeightProductTest, DiscardedProductsAreGone) {
  Train(/*keep_products=*/true);
  for (const auto& executor : executors_) {
    ASSERT_THAT(executor->Discard(), IsOk());
  }
  EXPECT_THAT(executors_[0]->Read(gradient_),
              StatusIs(StatusCode::kNotFound, HasSubstr("net1.weight")));
}

TEST_F(WeightProductTest, WhatIsAskedOfGradientsIsAnsweredByProducts) {
  Train(/*keep_products=*/true);
  Commit(std::nullopt);
  const std::vector<float> gradient = Read(1, gradient_);
  Train(/*keep_products=*/false, /*accumulate=*/true);
  Commit(std::nullopt);
  EXPECT_EQ(Read(1, gradient_), Sum(gradient, 1, gradient));

  Train(/*keep_products=*/true);
  const double norm = Norm().gradient_norm;  // of what the last commit left
  Train(/*keep_products=*/true);
  Commit(std::nullopt);
  EXPECT_NEAR(Norm().gradient_norm, norm / 2, 1e-6 * norm);

  const std::vector<float> before = Read(1, weight_);
  Commit(AdamOptions{.lr = 0.5, .eps = 0});
  const std::vector<float> after = Read(1, weight_);
  for (size_t i = 0; i < before.size(); i += 1001) {
    if (gradient[i] == 0) continue;
    const float sign = gradient[i] > 0 ? 1.f : -1.f;
    EXPECT_FLOAT_EQ(after[i], before[i] - sign / 2) << i;
  }
}

// The op's input is the memory of a parameter, which the update changes.
TEST_F(WeightProductTest, FactorsThatAnUpdateChangesAreNotKept) {
  ShardedProgram program = WideLinears();
  program.values[0].type.shape = {1, 1024};
  program.inputs = {};
  program.parameters.push_back({"net3.weight", 0, -1});
  MaterializeSpec spec = TwoWeights(512, 1024);
  spec.parameters.push_back({.fqn = "net3.weight",
                             .type = {DType::kFloat32, {1, 1024}},
                             .spec = {{Replicate{}}, {}},
                             .requires_grad = false});
  StageOn(1, "parameter:net1.weight", F32({512, 1024}, Pattern(512 * 1024)));
  StageOn(1, "parameter:net2.weight", F32({1024, 512}, Pattern(512 * 1024)));
  StageOn(1, "parameter:net3.weight", F32({1, 1024}, Pattern(1024)));
  TorchExecutorTest::Materialize(spec, testing::_);
  Load(program);
  const RunSpec run{
      .program = "p", .mode = RunMode::kTrain, .keep_products = true};
  Run(run, F32({1, 1}, {0}));
  Commit(std::nullopt);
  const std::vector<float> gradient = Read(1, gradient_);
  ForEachRank([&](int rank) {
    StageOn(rank, "new", F32({1, 1024}, std::vector<float>(1024, 9)));
    ASSERT_THAT(
        executors_[rank]->LoadState({.entries = {{"net3.weight", "new"}}}),
        IsOk());
  });
  EXPECT_EQ(Read(1, gradient_), gradient);
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
  ASSERT_EQ(result.ran.carried.size(), 1);
  EXPECT_EQ(result.ran.carried[0].bytes, 24) << "and none of materializing";
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

}  // namespace
}  // namespace shardplane
