#include "coordinator/change_log.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

WorkerRecord Worker(const std::string& id,
                    WorkerState state = WorkerState::kReady) {
  return {.id = {id}, .incarnation = {1}, .state = state};
}

OperationRecord Operation(const std::string& id, uint64_t revision = 1) {
  return {.id = {id}, .uid = "u", .revision = revision};
}

class ChangeLogTest : public ::testing::Test {
 protected:
  // "ADDED workers/w0 1"
  std::vector<std::string> Since(uint64_t version, ChangeFilter filter = {},
                                 size_t limit = 100) {
    std::vector<Change> changes;
    status_ = log_.Since(version, filter, limit, &changes, &to_);
    static constexpr const char* kTypes[] = {"", "ADDED", "MODIFIED",
                                             "DELETED"};
    std::vector<std::string> texts;
    for (const Change& change : changes) {
      texts.push_back(absl::StrCat(kTypes[static_cast<int>(change.type)], " ",
                                   ResourceName(*change.shown), " ",
                                   change.version));
    }
    return texts;
  }

  ChangeLog log_{/*kept_deletions=*/2};
  absl::Status status_;
  uint64_t to_ = 0;
};

TEST_F(ChangeLogTest, TellsOfEachResourceTheLastChange) {
  EXPECT_TRUE(log_.Put(Worker("w0")));
  EXPECT_TRUE(log_.Put(Operation("o1")));
  EXPECT_TRUE(log_.Put(Worker("w0", WorkerState::kDraining)));
  EXPECT_TRUE(log_.Remove("operations/o1"));

  EXPECT_THAT(Since(0), ElementsAre("ADDED workers/w0 3"))
      << "what came and went since is not worth telling";
  EXPECT_THAT(Since(1), ElementsAre("MODIFIED workers/w0 3"));
  EXPECT_THAT(Since(2),
              ElementsAre("MODIFIED workers/w0 3", "DELETED operations/o1 4"));
  EXPECT_THAT(Since(4), IsEmpty());
  EXPECT_EQ(to_, 4);
}

TEST_F(ChangeLogTest, WhatIsShownAlreadyIsNoChange) {
  EXPECT_TRUE(log_.Put(Worker("w0")));
  EXPECT_FALSE(log_.Put(Worker("w0")));
  EXPECT_FALSE(log_.Remove("workers/w1"));
  EXPECT_EQ(log_.version(), 1);
}

TEST_F(ChangeLogTest, WhatComesBackIsAddedAgain) {
  log_.Put(Worker("w0"));
  log_.Remove("workers/w0");
  EXPECT_FALSE(log_.Remove("workers/w0"));
  EXPECT_TRUE(log_.Put(Worker("w0")));
  EXPECT_THAT(Since(1), ElementsAre("ADDED workers/w0 3"));
}

TEST_F(ChangeLogTest, LeavesOutWhatNobodyAskedFor) {
  log_.Put(Worker("w0"));
  log_.Put(Worker("w1"));
  log_.Put(Operation("o1"));
  EXPECT_THAT(Since(0, {.collections = {"operations"}}),
              ElementsAre("ADDED operations/o1 3"));
  EXPECT_THAT(Since(0, {.name = "workers/w1"}),
              ElementsAre("ADDED workers/w1 2"));
  EXPECT_EQ(to_, 3) << "all has been looked at";
}

TEST_F(ChangeLogTest, GoesOnWhereAPageEnded) {
  for (int i = 0; i < 5; ++i) log_.Put(Worker(absl::StrCat("w", i)));
  EXPECT_THAT(Since(0, {}, 2), SizeIs(2));
  EXPECT_EQ(to_, 2);
  EXPECT_THAT(Since(to_, {}, 100), SizeIs(3));
}

TEST_F(ChangeLogTest, DeletionsAreForgottenInTime) {
  for (const std::string id : {"w0", "w1", "w2", "w3"}) log_.Put(Worker(id));
  for (const std::string id : {"w0", "w1", "w2"}) {
    log_.Remove(absl::StrCat("workers/", id));
  }
  // w0's, which was 5, is gone.
  Since(4);
  EXPECT_THAT(status_, HasReason("WATCH_VERSION_TOO_OLD"));
  EXPECT_EQ(to_, 5);
  EXPECT_THAT(Since(5),
              ElementsAre("DELETED workers/w1 6", "DELETED workers/w2 7"));
  EXPECT_THAT(Since(0), ElementsAre("ADDED workers/w3 4"));
  EXPECT_THAT(status_, IsOk());
}

TEST_F(ChangeLogTest, WhatIsForgottenHasNeverBeen) {
  log_.Put(EventRecord{.id = {"01"}});
  log_.Put(EventRecord{.id = {"02"}});
  log_.Forget("events/01");
  EXPECT_THAT(Since(0), ElementsAre("ADDED events/02 2"));
  EXPECT_THAT(Since(1), ElementsAre("ADDED events/02 2"));
}

TEST_F(ChangeLogTest, NamesWhatACollectionShows) {
  log_.Put(Worker("w0"));
  log_.Put(Worker("w1"));
  log_.Put(Operation("o1"));
  log_.Remove("workers/w0");
  EXPECT_THAT(log_.Names("workers"), ElementsAre("workers/w1"));
}

TEST_F(ChangeLogTest, DeletedDeploymentsKeepNoModules) {
  auto spec = std::make_shared<DeploymentSpec>();
  spec->labels["team"] = "a";
  log_.Put(DeploymentInfo{
      .id = {"d"}, .spec = spec, .report = std::make_shared<const Report>()});
  log_.Remove("deployments/d");
  std::vector<Change> changes;
  ASSERT_THAT(log_.Since(1, {}, 10, &changes, &to_), IsOk());
  ASSERT_THAT(changes, SizeIs(1));
  const auto& info = std::get<DeploymentInfo>(*changes[0].shown);
  EXPECT_EQ(info.report, nullptr);
  EXPECT_EQ(info.spec->labels, spec->labels);
  EXPECT_THAT(info.spec->module.parameters(), IsEmpty());
}

}  // namespace
}  // namespace shardplane
