// Agreeing on a step before it is committed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <thread>
#include <vector>

#include "tests/matchers.h"
#include "worker/programs_for_test.h"
#include "worker/torch_executor_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

struct AgreementCase {
  const char* name;
  std::vector<MeshDim> dims;
  std::vector<CollectiveCount> counts;  // of one i32 a collective
};
std::ostream& operator<<(std::ostream& out, const AgreementCase& test_case) {
  return out << test_case.name;
}

class AgreementTest : public TorchExecutorTest,
                      public testing::WithParamInterface<AgreementCase> {
 protected:
  void SetUp() override {
    Form(*DeviceMesh::Create(GetParam().dims));
    if (IsSkipped()) return;
    ForEachRank([&](int rank) {
      ASSERT_THAT(executors_[rank]->Materialize({}, nullptr), IsOk());
      ASSERT_THAT(executors_[rank]->Run({.mode = RunMode::kNorm}), IsOk());
    });
  }

  // What each rank is told, where all but `against` say kCommit.
  std::vector<Verdict> AgreeAgainst(int against) {
    std::vector<Verdict> told(mesh_.size());
    ForEachRank([&](int rank) {
      const auto agreement = executors_[rank]->Agree(
          rank == against ? Verdict::kDiscard : Verdict::kCommit);
      ASSERT_THAT(agreement, IsOk());
      EXPECT_THAT(agreement->counts,
                  testing::ElementsAreArray(GetParam().counts));
      told[rank] = agreement->verdict;
    });
    return told;
  }
};

TEST_P(AgreementTest, CommitsOnlyIfAllSaySo) {
  EXPECT_THAT(AgreeAgainst(-1), Each(Verdict::kCommit));
}

TEST_P(AgreementTest, EachRankAloneCanPrevent) {
  for (int rank = 0; rank < mesh_.size(); ++rank) {
    ForEachRank([&](int each) {
      ASSERT_THAT(executors_[each]->Run({.mode = RunMode::kNorm}), IsOk());
    });
    EXPECT_THAT(AgreeAgainst(rank), Each(Verdict::kDiscard)) << "rank " << rank;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, AgreementTest,
    testing::Values(AgreementCase{"one rank", {{"tp", 1}}, {}},
                    AgreementCase{"two ranks",
                                  {{"tp", 2}},
                                  {{"commit", "all_reduce", 1, 4}}},
                    AgreementCase{"four ranks",
                                  {{"tp", 4}},
                                  {{"commit", "all_reduce", 1, 4}}},
                    AgreementCase{"two dims",
                                  {{"dp", 2}, {"tp", 2}},
                                  {{"commit", "all_reduce", 2, 8}}},
                    AgreementCase{"a dim of one",
                                  {{"dp", 1}, {"tp", 2}},
                                  {{"commit", "all_reduce", 1, 4}}}),
    CaseName<AgreementCase>);

TEST_F(TorchExecutorTest, RankWhoseRunBrokeOffTakesNoPart) {
  Materialize();
  Load(TwoLinears());
  for (const auto& executor : executors_) {
    // Before the first of two collectives, on every rank alike.
    EXPECT_THAT(executor->Run({.program = "p",
                               .mode = RunMode::kTrain,
                               .inputs = {"upload:gone"}}),
                StatusIs(StatusCode::kNotFound, HasSubstr("upload:gone")));
    EXPECT_THAT(executor->Agree(Verdict::kDiscard),
                AllOf(StatusIs(StatusCode::kFailedPrecondition, testing::_),
                      HasReason("OUT_OF_STEP")));
    EXPECT_THAT(executor->Run({.program = "nope"}),
                StatusIs(StatusCode::kNotFound, testing::_));
    EXPECT_THAT(executor->Agree(Verdict::kDiscard), HasReason("OUT_OF_STEP"));
  }
  // The gang is as it was.
  Train();
  ForEachRank([&](int rank) {
    const auto agreement = executors_[rank]->Agree(Verdict::kCommit);
    ASSERT_THAT(agreement, IsOk());
    EXPECT_EQ(agreement->verdict, Verdict::kCommit);
  });
}

TEST_F(TorchExecutorTest, RankThatFailsBehindItsLastCollectiveSaysSo) {
  Form(*DeviceMesh::Create({{"tp", 3}}));
  if (IsSkipped()) return;
  ForEachRank([&](int rank) {
    ASSERT_THAT(executors_[rank]->Materialize({}, nullptr), IsOk());
  });
  Load(RandomHalf());  // no collectives
  std::vector<Verdict> told(3);
  ForEachRank([&](int rank) {
    if (rank != 1) {
      StageOn(rank, "upload:x", F32({5, 4}, std::vector<float>(20, 1)));
    }
    const auto ran = executors_[rank]->Run(
        {.program = "p", .mode = RunMode::kTrain, .inputs = {"upload:x"}});
    EXPECT_EQ(ran.ok(), rank != 1) << ran.status();
    const auto agreement = executors_[rank]->Agree(
        ran.ok() ? Verdict::kCommit : Verdict::kDiscard);
    ASSERT_THAT(agreement, IsOk());
    told[rank] = agreement->verdict;
  });
  EXPECT_THAT(told, Each(Verdict::kDiscard));
}

TEST_F(TorchExecutorTest, LostPeerEndsAnAgreement) {
  Materialize();
  Load(TwoLinears());
  Train();
  absl::StatusOr<Agreement> agreement;
  std::thread survivor(
      [&] { agreement = executors_[0]->Agree(Verdict::kCommit); });
  ASSERT_THAT(executors_[1]->LeaveGang(), IsOk());
  survivor.join();
  EXPECT_THAT(agreement, StatusIs(StatusCode::kUnavailable,
                                  HasSubstr("mesh dim tp at rank 0")));
  EXPECT_THAT(executors_[0]->Agree(Verdict::kCommit), HasReason("GANG_BROKEN"));
}

TEST_F(TorchExecutorTest, AgreeingNeedsAGang) {
  ASSERT_THAT(executors_[0]->LeaveGang(), IsOk());
  EXPECT_THAT(executors_[0]->Agree(Verdict::kCommit), HasReason("NO_GANG"));
  EXPECT_THAT(executors_[0]->CheckCommit(std::nullopt, std::nullopt),
              HasReason("NO_GANG"));
}

TEST_F(TorchExecutorTest, CheckSaysWhatCommitWouldAndChangesNothing) {
  Materialize();
  Load(TwoLinears());
  Train();
  OptimizerOptions nobody{.values = SgdOptions{.lr = 0.5}};
  nobody.groups.push_back({.patterns = {"net3.*"}, .values = nobody.values});
  const OptimizerOptions sgd{.values = SgdOptions{.lr = 0.5}};
  Executor& executor = *executors_[1];
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(executor.CheckCommit(nobody, std::nullopt),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("net3")));
    EXPECT_THAT(executor.CheckCommit(sgd, 1.0), HasReason("NO_GRADIENT_NORM"));
    EXPECT_THAT(executor.CheckCommit(sgd, std::nullopt), IsOk());
  }
  EXPECT_THAT(executor.Commit(nobody, std::nullopt),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("net3")));
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(5, 6));
  EXPECT_THAT(executor.Commit(sgd, std::nullopt), IsOk());
  EXPECT_THAT(Read(1, ParameterKey{"net1.weight"}), ElementsAre(3.5, -9));
  EXPECT_THAT(executor.CheckCommit(OptimizerOptions{.values = AdamOptions()},
                                   std::nullopt),
              HasReason("OPTIMIZER_KIND_DIFFERS"));
}

}  // namespace
}  // namespace shardplane
