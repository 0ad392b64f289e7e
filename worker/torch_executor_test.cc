#include "worker/torch_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "common/dropout_mask.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "worker/programs_for_test.h"
#include "worker/torch_executor_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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
    const auto ran = executors_[rank]->Materialize(spec, nullptr);
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
  StageOn(1, "parameter:inner", F32({3}, {1, 2, 3}));
  StageOn(1, "parameter:r", F32({1}, {9}));
  const MaterializeSpec spec{
      .parameters = {{.fqn = "inner",
                      .type = {DType::kFloat32, {3}},
                      .spec = {{Shard{0}, Shard{0}}, {}}},
                     {.fqn = "w",
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
  Materialize(spec, testing::_);
  EXPECT_THAT(Read(0, ParameterKey{"w"}), ElementsAre(1, 2));
  EXPECT_THAT(Read(3, ParameterKey{"w"}), ElementsAre(3));
  // tp cuts first, into 2 and 1; dp within.
  EXPECT_THAT(Read(0, ParameterKey{"both"}), ElementsAre(1));
  EXPECT_THAT(Read(2, ParameterKey{"both"}), ElementsAre(2));
  EXPECT_THAT(Read(1, ParameterKey{"both"}), ElementsAre(3));
  EXPECT_THAT(Read(3, ParameterKey{"both"}), IsEmpty());
  // The same, dp first: what tp cuts travels second.
  EXPECT_THAT(Read(0, ParameterKey{"inner"}), ElementsAre(1));
  EXPECT_THAT(Read(1, ParameterKey{"inner"}), ElementsAre(2));
  EXPECT_THAT(Read(2, ParameterKey{"inner"}), ElementsAre(3));
  EXPECT_THAT(Read(3, ParameterKey{"inner"}), IsEmpty());
  EXPECT_THAT(Read(2, ParameterKey{"r"}), ElementsAre(9));
  EXPECT_THAT(Read(1, ParameterKey{"zero"}), ElementsAre(1));
}

TEST_F(TorchExecutorTest, MaterializeErrorsNameTheParameter) {
  MaterializeSpec spec = TwoWeights();
  spec.src_data_rank.reset();
  EXPECT_THAT(executors_[0]->Materialize(spec, nullptr),
              StatusIs(StatusCode::kNotFound, HasSubstr("net1.weight")));
  StageOn(0, "parameter:net1.weight", F32({2, 2}, {1, 2, 3, 4}));
  EXPECT_THAT(
      executors_[0]->Materialize(spec, nullptr),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("net1.weight"), HasSubstr("got: f32[2, 2]"))));
  spec.src_data_rank = 2;
  EXPECT_THAT(executors_[0]->Materialize(spec, nullptr),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("got: 2")));
}

TEST_F(TorchExecutorTest, RunsForwardAndBackward) {
  Materialize();
  Load(TwoLinears());
  const RunResult result = Train();
  // h = (21, 43, 65); y = (21 + 65, 43 + 130).
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Read(1, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Floats(result.loss.value()), ElementsAre(259));
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

MaterializeSpec TotalOfZeros() {
  return {
      .parameters = {{.fqn = "total",
                      .type = {DType::kFloat32, {2}},
                      .spec = {{Replicate{}}, {}},
                      .initializer = Initializer{Initializer::Kind::kZeros}}},
      .src_data_rank = 0};
}

TEST_F(TorchExecutorTest, BuffersChangeWhenAStepIsAccepted) {
  Materialize(TotalOfZeros(), testing::_);
  Load(RunningTotal());
  const auto total = [&] { return Read(1, ParameterKey{"total"}); };
  const RunResult result = Run(RunMode::kTrain, F32({2}, {1, 10}));
  EXPECT_FALSE(result.loss.has_value());
  EXPECT_THAT(total(), ElementsAre(0, 0));
  Commit(std::nullopt);
  EXPECT_THAT(total(), ElementsAre(1, 10));
  EXPECT_THAT(Read(1, OutputKey{0}), ElementsAre(0, 0));  // as it was
  // Discarded, run without a number, or run anew: nothing is left of it.
  Run(RunMode::kTrain, F32({2}, {5, 5}));
  for (const auto& executor : executors_) {
    ASSERT_THAT(executor->Discard(), IsOk());
  }
  Run(RunMode::kForward, F32({2}, {5, 5}));
  Commit(std::nullopt);
  EXPECT_THAT(total(), ElementsAre(1, 10));
  Run(RunMode::kTrain, F32({2}, {5, 5}));
  Run(RunMode::kTrain, F32({2}, {2, 3}));
  Commit(std::nullopt);
  EXPECT_THAT(total(), ElementsAre(3, 13));
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
    ASSERT_THAT(executors_[rank]->Materialize({.seed = seed}, nullptr), IsOk());
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
    EXPECT_THAT(executors_[rank]->Materialize({}, nullptr), IsOk());
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
    EXPECT_THAT(executors_[rank]->Materialize({}, nullptr), IsOk());
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
  // The client tells these from other tensors that are not there.
  EXPECT_THAT(executor.Read(GradientKey{"net1.weight"}),
              HasReason("GRADIENT_NOT_FOUND"));
  EXPECT_THAT(executor.Read(InputGradientKey{0}),
              HasReason("GRADIENT_NOT_FOUND"));
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
  ASSERT_THAT(executors_[0]->Materialize(spec, nullptr), IsOk());
  ShardedProgram program = TwoLinears();
  program.mesh = mesh_;
  Load(program);
  const RunResult result = TrainWithNorm();
  EXPECT_THAT(result.ran.counts, IsEmpty());
  EXPECT_THAT(Read(0, OutputKey{0}), ElementsAre(86, 173));
  EXPECT_THAT(Floats(result.loss.value()), ElementsAre(259));
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
