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
