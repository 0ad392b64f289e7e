// On a CPU with a graph that calls its work again, and fills the memory of the
// first time as a device's would; in the target tagged gpu with a GPU's.
#include "worker/captured_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "c10/core/DeviceGuard.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/gang_for_test.h"
#include "worker/gang_tensors.h"
#include "worker/graph_for_test.h"
#include "worker/kernels_for_test.h"
#include "worker/programs_for_test.h"
#include "worker/tensor_memory.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

ProgramArgument Int(int64_t i) { return {i}; }

// loss = sum(w[x]^2): x i64[2], w f32[3, 2], and y = w[x]; or y is of a dropout
// of that.
ShardedProgram Lookup(bool drops = false) {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 1}});
  const auto value = [&](const char* name, DType dtype, Shape shape) {
    program.values.push_back(
        {name, {dtype, std::move(shape)}, DTensorSpec::Replicated(1)});
    return static_cast<ValueId>(program.values.size()) - 1;
  };
  const ValueId x = value("x", DType::kInt64, {2});
  const ValueId w = value("w", DType::kFloat32, {3, 2});
  const ValueId y = value("y", DType::kFloat32, {2, 2});
  const ValueId square = value("square", DType::kFloat32, {2, 2});
  const ValueId loss = value("loss", DType::kFloat32, {});
  const ValueId one = value("one", DType::kFloat32, {});
  const ValueId g_w = value("g_w", DType::kFloat32, {3, 2});
  program.segments = {{.inputs = {x, w},
                       .outputs = {y, loss},
                       .ops = {{"shardplane.embedding.default",
                                {Ref(w), Ref(x), Int(0), Int(3)},
                                {},
                                {y},
                                "table"},
                               {"aten.square.default", {Ref(y)}, {}, {square}},
                               {"aten.sum.default", {Ref(square)}, {}, {loss}}},
                       .differentiable_inputs = {w},
                       .differentiable_outputs = {loss}}};
  if (drops) {
    const ValueId whole = value("whole", DType::kFloat32, {2, 2});
    program.random = value("random", DType::kInt64, {2});
    Segment& segment = program.segments[0];
    segment.inputs.push_back(program.random);
    segment.ops[0].results = {whole};
    const ProgramArgument sizes{ProgramArgumentList{Int(2), Int(2)}};
    const ProgramArgument offsets{ProgramArgumentList{Int(0), Int(0)}};
    segment.ops.insert(
        segment.ops.begin() + 1,
        {"shardplane.dropout.default",
         {Ref(whole), Ref(program.random), {0.5}, Int(1), sizes, offsets},
         {},
         {y}});
  }
  program.parameters = {{"w", w, g_w}};
  program.inputs = {{x, -1}};
  program.outputs = {y};
  program.loss = loss;
  program.instructions = {RunSegment{0}, Ones{one},
                          RunSegmentBackward{0, {one}, {g_w}}};
  program.backward_begin = 1;
  return program;
}

// And where the square is not zero, for which the host waits for a device.
ShardedProgram LookupThatWaits() {
  ShardedProgram program = Lookup();
  constexpr ValueId kSquare = 3;
  const auto places = static_cast<ValueId>(program.values.size());
  program.values.push_back(
      {"places", {DType::kInt64, {4, 2}}, DTensorSpec::Replicated(1)});
  program.segments[0].ops.push_back(
      {"aten.nonzero.default", {Ref(kSquare)}, {}, {places}});
  return program;
}

class CapturedRunTest : public testing::Test {
 protected:
  CapturedRunTest() : device_(DeviceForTest(0)), guard_(device_) {
    // On a GPU dropout would wait for it without them.
    if (!device_.is_cpu()) KernelsInUse();
    KeepTensorMemory();
    tensors_ = std::make_unique<GangTensors>(
        GangSpec{.deployment = "deployments/d", .mesh = gang_.mesh()}, device_,
        GangTensors::Graphs{
            [this] {
              return std::make_unique<CountedGraph>(
                  device_, commits_ ? OnCpu::kKeepsWork : OnCpu::kFillsMemory,
                  commits_ ? &updates_ : &counts_);
            },
            [this](const std::string& what, const absl::Status& went) {
              if (!commits_) {
                told_ += absl::StrCat(what, " ", went.message(), "\n");
              }
            }});
    communicator_.set_device(device_);
    Materialize({1, 2, 3, 4, 5, 6});
    EXPECT_THAT(tensors_->LoadProgram("p", Lookup()), IsOk());
  }

  void Materialize(const std::vector<float>& w) {
    EXPECT_THAT(tensors_->Stage("parameter:w", F32({3, 2}, w)), IsOk());
    MaterializeSpec spec;
    spec.parameters = {{.fqn = "w",
                        .type = {DType::kFloat32, {3, 2}},
                        .spec = DTensorSpec::Replicated(1),
                        .requires_grad = true}};
    MaterializeProgress progress;
    EXPECT_THAT(tensors_->Materialize(spec, communicator_, &progress), IsOk());
  }
  absl::StatusOr<float> Run(std::vector<int64_t> ids, bool accumulate = false,
                            bool by_operator = false, uint64_t step = 0) {
    HostTensor x{{DType::kInt64, {2}}, {}};
    x.bytes.resize(2 * sizeof(int64_t));
    std::memcpy(x.bytes.data(), ids.data(), x.bytes.size());
    EXPECT_THAT(tensors_->Stage("x", std::move(x)), IsOk());
    const auto result = tensors_->Run({.program = "p",
                                       .mode = RunMode::kTrain,
                                       .inputs = {"x"},
                                       .accumulate = accumulate,
                                       .random_step = step,
                                       .timeline = true,
                                       .timeline_by_operator = by_operator},
                                      communicator_);
    if (!result.ok()) return result.status();
    timeline_ = result->timeline;
    peak_bytes_ = result->peak_bytes;
    return Floats(*result->loss)[0];
  }
  void Commit(double lr) {
    const OptimizerOptions sgd{SgdOptions{.lr = lr}, {}};
    commits_ = true;
    EXPECT_THAT(tensors_->Commit(sgd, std::nullopt), IsOk());
    commits_ = false;
  }
  std::vector<float> Read(const TensorKey& key) {
    const auto tensor = tensors_->Read(key);
    EXPECT_THAT(tensor, IsOk());
    return tensor.ok() ? Floats(tensor->local) : std::vector<float>();
  }
  void RunAndCommit(int times) {
    for (int i = 0; i < times; ++i) {
      ASSERT_THAT(Run({0, 1}), IsOkAndHolds(30));
      Commit(0);
    }
  }
  void WarmUp() {
    RunAndCommit(2);
    ASSERT_EQ(counts_.captures, 0);
  }

  GraphCounts counts_;   // of runs
  GraphCounts updates_;  // of their updates
  bool commits_ = false;
  std::string told_;      // of runs
  RunTimeline timeline_;  // of the last run
  int64_t peak_bytes_ = 0;
  const c10::Device device_;
  const c10::DeviceGuard guard_;
  GangForTest gang_{{{"tp", 1}}};
  Communicator communicator_{&gang_.groups(0), gang_.mesh(), 0};
  std::unique_ptr<GangTensors> tensors_;
};

TEST_F(CapturedRunTest, TheThirdRunIsCapturedAndTheOthersAreReplays) {
  WarmUp();
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
  EXPECT_THAT(Read(OutputKey{0}), ElementsAre(1, 2, 3, 4));
  Commit(0);
  EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(2, 4, 6, 8, 0, 0));
  EXPECT_THAT(Run({2, 2}), IsOkAndHolds(122));
  EXPECT_THAT(Read(OutputKey{0}), ElementsAre(5, 6, 5, 6));
  Commit(0);
  EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(0, 0, 0, 0, 20, 24));
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 2);
  EXPECT_EQ(told_, "p: steps \n");
}

TEST_F(CapturedRunTest, ReplaysSeeUpdatesAndLoadedState) {
  WarmUp();
  EXPECT_THAT(Run({0, 0}), IsOkAndHolds(10));
  Commit(0.25);  // w[0] -= 0.25 * 4 * w[0]
  EXPECT_THAT(Read(ParameterKey{"w"}), ElementsAre(0, 0, 3, 4, 5, 6));
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(25));
  EXPECT_THAT(tensors_->Stage("w", F32({3, 2}, {1, 1, 1, 1, 1, 1})), IsOk());
  EXPECT_THAT(tensors_->LoadState({.entries = {{"w", "w"}}}), IsOk());
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(4));
  EXPECT_EQ(counts_.captures, 1);
}

TEST_F(CapturedRunTest, TheThirdUpdateByReplaysIsCapturedToo) {
  WarmUp();
  // w[2] *= 1 - 2 lr
  for (const double lr : {0.25, 0.25, 0.25, 1., 0.}) {
    EXPECT_THAT(Run({2, 1}), IsOk());
    Commit(lr);
  }
  EXPECT_THAT(Read(ParameterKey{"w"}),
              ElementsAre(1, 2, -0.375, -0.5, -0.625, -0.75));
  EXPECT_THAT(Read(GradientKey{"w"}),
              ElementsAre(0, 0, -0.75, -1, -1.25, -1.5));
  EXPECT_EQ(updates_.captures, 1);
  EXPECT_EQ(updates_.replays, 3);
}

TEST_F(CapturedRunTest, UpdatesOfParametersElsewhereAreCapturedAnew) {
  WarmUp();
  for (const int expected : {1, 2}) {
    for (int i = 0; i < 3; ++i) {
      EXPECT_THAT(Run({2, 2}), IsOk());
      Commit(0.125);
    }
    EXPECT_EQ(updates_.captures, expected);
    EXPECT_THAT(Read(ParameterKey{"w"}),
                ElementsAre(1, 2, 3, 4, 0.625, 0.75));  // halved thrice
    Materialize({1, 2, 3, 4, 5, 6});
  }
}

TEST_F(CapturedRunTest, AccumulatedGradientsAddUp) {
  WarmUp();
  EXPECT_THAT(Run({0, 1}), IsOk());
  Commit(0);
  EXPECT_THAT(Run({0, 0}, /*accumulate=*/true), IsOk());
  Commit(0);
  EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(6, 12, 6, 8, 0, 0));
  EXPECT_THAT(Run({2, 2}, /*accumulate=*/true), IsOk());
  Commit(0);
  EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(6, 12, 6, 8, 20, 24));
  EXPECT_EQ(counts_.replays, 3);
}

TEST_F(CapturedRunTest, GradientsOfTheStepBeforeAreGoneOnceTheNextHasRun) {
  WarmUp();
  EXPECT_THAT(Run({0, 1}), IsOk());
  Commit(0);
  EXPECT_THAT(Run({2, 2}), IsOk());
  EXPECT_THAT(tensors_->Discard(), IsOk());
  EXPECT_THAT(tensors_->Read(GradientKey{"w"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("gradient")));
  EXPECT_THAT(Read(ParameterKey{"w"}), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST_F(CapturedRunTest, IdsOutOfRangeAreFoundInReplays) {
  WarmUp();
  const auto is_bad =
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                     AllOf(HasSubstr("Index 7 is out of bounds"),
                           HasSubstr("shardplane.embedding.default in table"))),
            HasReason("INDEX_OUT_OF_RANGE"));
  EXPECT_THAT(Run({0, 7}), is_bad);  // captured
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
  EXPECT_THAT(Run({7, 0}), is_bad);
  EXPECT_THAT(Run({2, 2}), IsOkAndHolds(122));
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 4);
}

TEST_F(CapturedRunTest, ParametersElsewhereAreCapturedAnew) {
  WarmUp();
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
  Materialize({1, 1, 1, 1, 1, 1});
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(4));
  EXPECT_THAT(Run({0, 2}), IsOkAndHolds(4));
  EXPECT_EQ(counts_.captures, 2);
}

TEST_F(CapturedRunTest, WhereCapturingFailsRunsAreAsEver) {
  counts_.fails = true;
  WarmUp();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
    Commit(0);
    EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(2, 4, 6, 8, 0, 0));
  }
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 0);
  EXPECT_EQ(
      told_,
      "p: steps capturing a run: operation not permitted when capturing\n");
}

TEST_F(CapturedRunTest, AfterAProgramThatCannotBeCapturedAnotherIs) {
  EXPECT_THAT(tensors_->LoadProgram("p", LookupThatWaits()), IsOk());
  counts_.fails = device_.is_cpu();  // a GPU says so by itself
  RunAndCommit(4);
  EXPECT_THAT(told_, StartsWith("p: steps capturing a run: "));
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 0);
  counts_.fails = false;
  told_.clear();
  EXPECT_THAT(tensors_->LoadProgram("p", Lookup()), IsOk());
  RunAndCommit(4);
  EXPECT_EQ(told_, "p: steps \n");
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedRunTest, AReplaysTimelineIsOneSpan) {
  WarmUp();
  EXPECT_EQ(timeline_.spans.size(), 3);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
    ASSERT_EQ(timeline_.spans.size(), 1);
    EXPECT_EQ(timeline_.spans[0].instruction, 0);
    EXPECT_GT(timeline_.spans[0].duration, 0);
    EXPECT_GT(timeline_.begin_unix, 0);
  }
}

TEST_F(CapturedRunTest, AReplaysPeakIsThatOfTheRunThatWasCaptured) {
  WarmUp();
  EXPECT_THAT(Run({0, 1}), IsOk());
  const int64_t captured = peak_bytes_;
  EXPECT_GT(captured, 2 * 24) << "w's gradient, what it was made of";
  EXPECT_THAT(Run({0, 1}), IsOk());
  EXPECT_EQ(peak_bytes_, captured);
  EXPECT_THAT(Run({0, 1}, false, /*by_operator=*/true), IsOk());
  EXPECT_LT(peak_bytes_, captured);
}

TEST_F(CapturedRunTest, RunsWithATimelineByOperatorAreAsEver) {
  WarmUp();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Run({0, 1}, false, /*by_operator=*/true), IsOkAndHolds(30));
  }
  EXPECT_EQ(counts_.captures, 0);
  EXPECT_THAT(Run({0, 1}), IsOkAndHolds(30));
  Commit(0);
  EXPECT_THAT(Run({2, 2}, false, /*by_operator=*/true), IsOkAndHolds(122));
  EXPECT_THAT(tensors_->Discard(), IsOk());
  EXPECT_THAT(Read(GradientKey{"w"}), ElementsAre(2, 4, 6, 8, 0, 0));
  EXPECT_EQ(counts_.captures, 1);
}

TEST_F(CapturedRunTest, MasksAreOfTheStep) {
  EXPECT_THAT(tensors_->LoadProgram("p", Lookup(/*drops=*/true)), IsOk());
  std::vector<std::vector<float>> expected;
  for (uint64_t step = 1; step < 8; ++step) {
    EXPECT_THAT(Run({0, 1}, false, /*by_operator=*/true, step), IsOk());
    expected.push_back(Read(OutputKey{0}));
  }
  EXPECT_GT(std::set(expected.begin(), expected.end()).size(), 2u);
  for (uint64_t step = 1; step < 8; ++step) {
    EXPECT_THAT(Run({0, 1}, false, false, step), IsOk());
    EXPECT_EQ(Read(OutputKey{0}), expected[step - 1]);
    Commit(0);
  }
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 5);
}

TEST(CapturedRunFitsTest, ALoss) {
  ShardedProgram program = Lookup();
  EXPECT_TRUE(CapturedRun::Fits(program));
  program.loss = -1;
  EXPECT_FALSE(CapturedRun::Fits(program));
}

}  // namespace
}  // namespace shardplane
