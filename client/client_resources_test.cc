// Resources by name and lists, against a coordinator of the test's.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "client/fake_cluster.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::_;
using ::testing::ElementsAre;

// Five of each: three pages of the fake's.
FakeResources Fives() {
  FakeResources all;
  for (int i = 1; i <= 5; ++i) {
    all.workers.emplace_back().set_name(absl::StrCat("workers/", i));
    all.modules.emplace_back().set_name(absl::StrCat("modules/", i));
    all.deployments.emplace_back().set_name(absl::StrCat("deployments/", i));
    all.operations.emplace_back().set_name(absl::StrCat("operations/", i));
    all.programs.emplace_back().set_name(
        absl::StrCat("deployments/d/programs/", i));
    pb::StepResult& step = all.steps.emplace_back();
    step.set_name(absl::StrCat("deployments/d/steps/", i));
    step.set_number(i);
    pb::Event& event = all.events.emplace_back();
    event.set_name(absl::StrCat("events/", i));
    event.set_resource(i % 2 == 0 ? "workers/2" : "workers/1");
  }
  all.timelines.emplace_back().set_name("deployments/d/steps/3/timeline");
  return all;
}

template <typename Repeated>
std::vector<std::string> Names(const Repeated& items) {
  std::vector<std::string> names;
  for (const auto& item : items) {
    names.push_back(item.name().substr(item.name().rfind('/') + 1));
  }
  return names;
}

class ClientResourcesTest : public ::testing::Test {
 protected:
  ClientResourcesTest() : fake_(Fives()) {
    client_ = *Client::Connect(fake_.address());
  }

  FakeCluster fake_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientResourcesTest, ListsHaveAllTheirPages) {
  const auto all = ElementsAre("1", "2", "3", "4", "5");
  const auto workers = client_->ListWorkers();
  ASSERT_THAT(workers, IsOk());
  EXPECT_THAT(Names(workers->workers()), all);
  EXPECT_EQ(workers->next_page_token(), "");
  EXPECT_THAT(Names(client_->ListModules()->modules()), all);
  EXPECT_THAT(Names(client_->ListDeployments()->deployments()), all);
  EXPECT_THAT(Names(client_->ListOperations()->operations()), all);
  EXPECT_THAT(Names(client_->ListPrograms("deployments/d")->programs()), all);
  EXPECT_THAT(Names(client_->ListSteps("deployments/d")->steps()), all);
  EXPECT_THAT(Names(client_->ListEvents()->events()), all);
}

TEST_F(ClientResourcesTest, ListsOfAPart) {
  EXPECT_THAT(Names(client_->ListSteps("deployments/d", 3)->steps()),
              ElementsAre("4", "5"));
  EXPECT_THAT(Names(client_->ListPrograms("deployments/e")->programs()),
              ElementsAre());
  EXPECT_THAT(Names(client_->ListEvents("workers/2")->events()),
              ElementsAre("2", "4"));
}

TEST_F(ClientResourcesTest, AListFailsAsItsPageDoes) {
  fake_.FailNext(grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "no"));
  EXPECT_THAT(client_->ListWorkers(),
              StatusIs(absl::StatusCode::kPermissionDenied, "no"));
}

TEST_F(ClientResourcesTest, OneByItsName) {
  EXPECT_EQ(client_->GetWorker("workers/2")->name(), "workers/2");
  EXPECT_EQ(client_->GetModule("modules/2")->name(), "modules/2");
  EXPECT_EQ(client_->GetOperation("operations/2")->name(), "operations/2");
  EXPECT_EQ(client_->GetStepTimeline("deployments/d/steps/3")->name(),
            "deployments/d/steps/3/timeline");
  EXPECT_THAT(client_->GetWorker("workers/6"),
              StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(ClientResourcesTest, AWorkerIsDrainedAndGivenBack) {
  pb::DrainWorkerRequest request;
  request.set_name("workers/2");
  EXPECT_EQ(client_->DrainWorker(request)->state(),
            pb::WorkerNode::STATE_DRAINING);
  request.set_undo(true);
  EXPECT_EQ(client_->DrainWorker(request)->state(),
            pb::WorkerNode::STATE_READY);
}

TEST_F(ClientResourcesTest, AnOperationIsWaitedForAndCancelled) {
  pb::Operation running;
  running.set_state(pb::Operation::STATE_RUNNING);
  pb::Operation done;
  done.set_state(pb::Operation::STATE_SUCCEEDED);
  fake_.SetWaits({running, done});
  EXPECT_EQ(client_->WaitOperation("operations/1", absl::Seconds(1))->state(),
            pb::Operation::STATE_RUNNING);
  EXPECT_EQ(client_->WaitOperation("operations/1", absl::Seconds(1))->state(),
            pb::Operation::STATE_SUCCEEDED);
  pb::CancelOperationRequest cancel;
  cancel.set_name("operations/2");
  EXPECT_EQ(client_->CancelOperation(cancel)->state(),
            pb::Operation::STATE_CANCELLED);
}

}  // namespace
}  // namespace shardplane
