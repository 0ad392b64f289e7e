// Graphs that have collectives: of ranks that are threads, on CPUs with groups
// and graphs that call again what they have recorded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "tests/matchers.h"
#include "worker/gang_for_test.h"
#include "worker/gang_tensors.h"
#include "worker/graph_for_test.h"
#include "worker/programs_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// What a group was told of replays.
struct Told {
  int recordings = 0;  // begun and not ended
  int recorded = 0;    // sums while one was
  int before = 0;
  int after = 0;
  bool runs = false;  // a replay that nobody has waited for
  bool aborted = false;
  bool may_be_recorded = true;  // what it says
};

// A group between CPUs that says that it may be recorded.
class RecordableGroup : public ProcessGroup {
 public:
  RecordableGroup(std::unique_ptr<ProcessGroup> group, Told* told)
      : ProcessGroup(group->rank(), group->size()),
        group_(std::move(group)),
        told_(told) {}

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) override {
    told_->recorded += told_->recordings;
    return group_->AllReduce(input, op);
  }
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) override {
    return group_->ReduceScatter(input, op);
  }
  void AllGather(const at::Tensor& output, const at::Tensor& input) override {
    group_->AllGather(output, input);
  }
  void AllToAll(const at::Tensor& output, const at::Tensor& input,
                absl::Span<const int64_t> output_counts,
                absl::Span<const int64_t> input_counts) override {
    group_->AllToAll(output, input, output_counts, input_counts);
  }
  void Scatter(const at::Tensor& output, const at::Tensor& input,
               int root) override {
    group_->Scatter(output, input, root);
  }
  void Broadcast(const at::Tensor& buffer, int root) override {
    group_->Broadcast(buffer, root);
  }
  void Finish() override {
    told_->runs = false;
    group_->Finish();
  }
  void Abort() override { group_->Abort(); }
  bool MayBeRecorded() const override { return told_->may_be_recorded; }
  void SetRecording(bool recording) override {
    told_->recordings += recording ? 1 : -1;
  }
  void BeforeReplay() override {
    TORCH_CHECK_WITH(DistBackendError, !told_->aborted, "Aborted");
    ++told_->before;
  }
  void AfterReplay() override {
    ++told_->after;
    told_->runs = true;
  }

 private:
  const std::unique_ptr<ProcessGroup> group_;
  Told* const told_;
};

// Fails once all that it should record has been called.
class FailingGraph : public CountedGraph {
 public:
  using CountedGraph::CountedGraph;
  std::vector<at::Tensor> Capture(const Work& work) override {
    CountedGraph::Capture(work);
    TORCH_CHECK(false, "operation not permitted when capturing");
  }
};

// TwoLinears on two ranks: forward sums a result, backward a gradient.
class CapturedCollectivesTest : public testing::Test {
 protected:
  struct Rank {
    GraphCounts runs;
    GraphCounts updates;
    bool fails = false;  // to capture runs
    bool commits = false;
    std::vector<std::string> log;
    Told told;
    std::unique_ptr<GangTensors> tensors;
  };
  using Results = std::vector<absl::StatusOr<RunResult>>;

  void SetUp() override {
    if (!gang_.status().ok() && TooFewGpus(gang_.status(), 2)) {
      GTEST_SKIP() << gang_.status();
    }
    ASSERT_THAT(gang_.status(), IsOk());
    gang_.Run([&](int rank, Communicator& communicator) {
      if (communicator.device().is_cpu()) {
        gang_.groups(rank).WrapEach([&](std::unique_ptr<ProcessGroup> group) {
          return std::make_unique<RecordableGroup>(std::move(group),
                                                   &ranks_[rank].told);
        });
      }
      ranks_[rank].tensors = MakeTensors(rank, communicator.device());
      EXPECT_THAT(ranks_[rank].tensors->LoadProgram("p", TwoLinears()), IsOk());
      GangTensors& tensors = *ranks_[rank].tensors;
      Stage(tensors, "parameter:net1.weight", F32({3, 2}, {1, 2, 3, 4, 5, 6}));
      Stage(tensors, "parameter:net2.weight", F32({2, 3}, {1, 0, 1, 0, 1, 2}));
      MaterializeSpec spec = TwoWeights();
      spec.src_data_rank.reset();
      EXPECT_THAT(tensors.Materialize(spec, communicator, nullptr), IsOk());
    });
  }

  std::unique_ptr<GangTensors> MakeTensors(int index, c10::Device device) {
    Rank& rank = ranks_[index];
    return std::make_unique<GangTensors>(
        GangSpec{
            .deployment = "deployments/d", .rank = index, .mesh = gang_.mesh()},
        device,
        GangTensors::Graphs{
            [&rank, device]() -> std::unique_ptr<DeviceGraph> {
              if (rank.commits) {
                return std::make_unique<CountedGraph>(device, OnCpu::kKeepsWork,
                                                      &rank.updates);
              }
              if (rank.fails) {
                return std::make_unique<FailingGraph>(
                    device, OnCpu::kFillsMemory, &rank.runs);
              }
              return std::make_unique<CountedGraph>(device, OnCpu::kFillsMemory,
                                                    &rank.runs);
            },
            [&rank](const std::string& what, const absl::Status& went) {
              rank.log.push_back(absl::StrCat(what, " ", went.message()));
            }});
  }

  static void Stage(GangTensors& tensors, const std::string& key,
                    const HostTensor& tensor) {
    EXPECT_THAT(tensors.Stage(key, tensor), IsOk());
  }

  // A step of all ranks, with SGD. Ranks whose run has failed commit nothing.
  Results Step(double lr) {
    Results results(2, absl::UnknownError("not run"));
    gang_.Run([&](int index, Communicator& communicator) {
      Rank& rank = ranks_[index];
      Stage(*rank.tensors, "x", F32({1, 2}, {1, 10}));
      results[index] = rank.tensors->Run(
          {.program = "p", .mode = RunMode::kTrain, .inputs = {"x"}},
          communicator);
      if (!results[index].ok()) return;
      EXPECT_FALSE(rank.told.runs) << "read before its collectives had ended";
      EXPECT_THAT(communicator.Finish(), IsOk());
      const auto agreed = rank.tensors->Agree(Verdict::kCommit, communicator);
      ASSERT_THAT(agreed, IsOk());
      EXPECT_EQ(agreed->verdict, Verdict::kCommit);
      rank.commits = true;
      EXPECT_THAT(rank.tensors->Commit(
                      OptimizerOptions{SgdOptions{.lr = lr}, {}}, std::nullopt),
                  IsOk());
      rank.commits = false;
    });
    return results;
  }

  std::vector<float> Read(int rank, const TensorKey& key) {
    const auto tensor = ranks_[rank].tensors->Read(key);
    EXPECT_THAT(tensor, IsOk());
    return tensor.ok() ? Floats(tensor->local) : std::vector<float>();
  }

  Rank ranks_[2];
  GangForTest gang_{{{"tp", 2}}};
};

TEST_F(CapturedCollectivesTest, ReplaysCountAndComputeAsCallsDo) {
  for (int step = 0; step < 5; ++step) {
    for (const auto& result : Step(0)) {
      ASSERT_THAT(result, IsOk());
      EXPECT_THAT(Floats(result->loss.value()), ElementsAre(259));
      EXPECT_EQ(result->ran.hash, HashOf(TwoLinears(), {0}));
      EXPECT_THAT(result->ran.counts,
                  ElementsAre(CollectiveCount{"forward", "all_reduce", 1, 8},
                              CollectiveCount{"backward", "all_reduce", 1, 8}));
      ASSERT_THAT(result->ran.carried, SizeIs(1));
      EXPECT_EQ(result->ran.carried[0].bytes, 16);
    }
    EXPECT_THAT(Read(0, GradientKey{"net1.weight"}), ElementsAre(1, 10, 1, 10));
    EXPECT_THAT(Read(1, GradientKey{"net1.weight"}), ElementsAre(3, 30));
    EXPECT_THAT(Read(1, InputGradientKey{0}), ElementsAre(19, 24));
  }
  for (const Rank& rank : ranks_) {
    EXPECT_EQ(rank.runs.captures, 1);
    EXPECT_EQ(rank.runs.replays, 3);
    EXPECT_EQ(rank.log.front(), "p: steps ");
  }
  if (gang_.groups(0).transports()[0].transport == Transport::kNccl) return;
  for (const Rank& rank : ranks_) {
    EXPECT_EQ(rank.told.recordings, 0);
    EXPECT_EQ(rank.told.recorded, 8) << "the capture, and three times again";
    EXPECT_EQ(rank.told.before, 3);
    EXPECT_EQ(rank.told.after, 3);
  }
}

TEST_F(CapturedCollectivesTest, ReplaysSeeUpdates) {
  for (int step = 0; step < 4; ++step) EXPECT_THAT(Step(0.01), Each(IsOk()));
  const std::vector<float> replayed = Read(0, ParameterKey{"net1.weight"});
  const std::vector<float> other = Read(1, ParameterKey{"net2.weight"});
  EXPECT_EQ(ranks_[0].runs.replays, 2);
  // The same without graphs.
  SetUp();
  for (Rank& rank : ranks_) rank.fails = true;
  for (int step = 0; step < 4; ++step) EXPECT_THAT(Step(0.01), Each(IsOk()));
  EXPECT_EQ(Read(0, ParameterKey{"net1.weight"}), replayed);
  EXPECT_EQ(Read(1, ParameterKey{"net2.weight"}), other);
}

TEST_F(CapturedCollectivesTest, WhereOneRankFailsNoneCaptures) {
  ranks_[1].fails = true;
  for (int step = 0; step < 4; ++step) {
    for (const auto& result : Step(0)) {
      ASSERT_THAT(result, IsOk());
      EXPECT_EQ(result->ran.hash, HashOf(TwoLinears(), {0}));
    }
  }
  for (const Rank& rank : ranks_) {
    EXPECT_EQ(rank.runs.captures, 1);
    EXPECT_EQ(rank.runs.replays, 0);
  }
  EXPECT_EQ(ranks_[0].log.front(),
            "p: steps capturing a run: a peer could not");
  EXPECT_EQ(ranks_[1].log.front(),
            "p: steps capturing a run: operation not permitted when capturing");
}

// What counts is what was committed: a rank may have run more often.
TEST_F(CapturedCollectivesTest, RunsThatAreDiscardedDoNotCount) {
  const auto run = [&] {
    gang_.Run([&](int rank, Communicator& communicator) {
      Stage(*ranks_[rank].tensors, "x", F32({1, 2}, {1, 10}));
      EXPECT_THAT(
          ranks_[rank].tensors->Run(
              {.program = "p", .mode = RunMode::kTrain, .inputs = {"x"}},
              communicator),
          IsOk());
      EXPECT_THAT(ranks_[rank].tensors->Discard(), IsOk());
    });
  };
  for (int i = 0; i < 4; ++i) run();
  EXPECT_EQ(ranks_[0].runs.captures, 0);
  for (int step = 0; step < 2; ++step) EXPECT_THAT(Step(0), Each(IsOk()));
  run();
  EXPECT_EQ(ranks_[0].runs.captures, 1);
  EXPECT_EQ(ranks_[1].runs.captures, 1);
}

TEST_F(CapturedCollectivesTest, GroupsThatCannotAreNotRecorded) {
  if (gang_.groups(0).transports()[0].transport == Transport::kNccl) return;
  for (Rank& rank : ranks_) rank.told.may_be_recorded = false;
  for (int step = 0; step < 4; ++step) EXPECT_THAT(Step(0), Each(IsOk()));
  EXPECT_EQ(ranks_[0].runs.captures, 0);
}

TEST_F(CapturedCollectivesTest, GraphsEndBeforeTheirGroupsDo) {
  for (int step = 0; step < 3; ++step) EXPECT_THAT(Step(0), Each(IsOk()));
  for (Rank& rank : ranks_) rank.tensors->LeaveGroups();
  for (const int captures : {1, 1, 2, 2}) {
    EXPECT_THAT(Step(0), Each(IsOk()));
    EXPECT_EQ(ranks_[0].runs.captures, captures);
  }
  EXPECT_EQ(ranks_[1].runs.replays, 3);
}

TEST_F(CapturedCollectivesTest, NothingIsReplayedInAGangThatIsAborted) {
  for (int step = 0; step < 3; ++step) EXPECT_THAT(Step(0), Each(IsOk()));
  for (int rank = 0; rank < 2; ++rank) {
    ranks_[rank].told.aborted = true;
    gang_.groups(rank).Abort();
  }
  EXPECT_THAT(
      Step(0),
      Each(AllOf(StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Aborted")),
                 HasReason("PEER_UNREACHABLE"))));
  EXPECT_EQ(ranks_[0].runs.replays, 1);
}

}  // namespace
}  // namespace shardplane
