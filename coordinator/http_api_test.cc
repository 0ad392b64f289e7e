// The rows of the API against a service that tells what it was asked.
#include "coordinator/http_api.h"

#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Each reading method answers with what it was asked in the answer's first
// string; a watch says what `watch` has and then waits for its end.
class FakeService : public pb::ShardingCoordinator::Service {
 public:
  using Context = grpc::ServerContext;

  grpc::Status ListWorkers(Context*, const pb::ListWorkersRequest* request,
                           pb::ListWorkersResponse* response) override {
    for (const char* name : {"workers/a", "workers/b"}) {
      response->add_workers()->set_name(name);
      response->mutable_workers()->rbegin()->set_rank(request->page_size());
    }
    return grpc::Status::OK;
  }
  grpc::Status GetWorker(Context*, const pb::GetWorkerRequest* request,
                         pb::WorkerNode*) override {
    return ToGrpcStatus(MakeError(
        absl::StatusCode::kNotFound, "no such worker",
        {.reason = "GONE", .metadata = {{"resource", request->name()}}}));
  }
#define ANSWERS(method, response_type, asked, told)                 \
  grpc::Status method(Context*, const pb::method##Request* request, \
                      pb::response_type* response) override {       \
    response->set_##told(request->asked());                         \
    return grpc::Status::OK;                                        \
  }
  ANSWERS(ListModules, ListModulesResponse, page_token, next_page_token)
  ANSWERS(GetModule, ModuleResource, name, name)
  ANSWERS(ListDeployments, ListDeploymentsResponse, page_token, next_page_token)
  ANSWERS(GetDeployment, Deployment, name, name)
  ANSWERS(ExplainDeployment, Explanation, fqn, fqn)
  ANSWERS(ListPrograms, ListProgramsResponse, parent, next_page_token)
  ANSWERS(GetProgram, Program, name, name)
  ANSWERS(GetStep, StepResult, name, name)
  ANSWERS(ListSteps, ListStepsResponse, parent, next_page_token)
  ANSWERS(GetStepTimeline, StepTimeline, name, name)
  ANSWERS(ListOperations, ListOperationsResponse, page_token, next_page_token)
  ANSWERS(GetOperation, Operation, name, name)
  ANSWERS(ListEvents, ListEventsResponse, resource, next_page_token)
#undef ANSWERS

  grpc::Status Watch(Context* context, const pb::WatchRequest* request,
                     grpc::ServerWriter<pb::WatchResponse>* writer) override {
    if (request->resume_version() == "old") {
      return ToGrpcStatus(MakeError(absl::StatusCode::kOutOfRange,
                                    "no longer known",
                                    {.reason = "OLD", .metadata = {}}));
    }
    const bool anew = request->resume_version().empty();
    if (anew) Write(pb::WatchEvent::TYPE_ADDED, "1", writer);
    if (anew) Write(pb::WatchEvent::TYPE_ADDED, "2", writer);
    Write(pb::WatchEvent::TYPE_BOOKMARK, "3", writer);
    if (request->resume_version() == "3") {
      Write(pb::WatchEvent::TYPE_MODIFIED, "4", writer);
    }
    if (!watching.HasBeenNotified()) watching.Notify();
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  }
  static void Write(pb::WatchEvent::Type type, const std::string& version,
                    grpc::ServerWriter<pb::WatchResponse>* writer) {
    pb::WatchResponse response;
    response.add_events()->set_type(type);
    response.mutable_events(0)->set_version(version);
    writer->Write(response);
  }

  absl::Notification watching;
};

class HttpApiTest : public ::testing::Test {
 protected:
  HttpApiTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    api_ = std::make_unique<HttpApi>(HttpApi::Options{
        .channel = server_->InProcessChannel(grpc::ChannelArguments()),
        .wait_limit = absl::Seconds(30)});
    routes_ = api_->Routes();
  }
  ~HttpApiTest() override {
    server_->Shutdown(std::chrono::system_clock::now());
  }

  HttpResponse Get(const std::string& path, const std::string& query = "") {
    const HttpRoute& route = routes_[path == "/v1/watch" ? 1 : 0];
    return route.handle({.path = path, .query = query});
  }

  FakeService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HttpApi> api_;
  std::vector<HttpRoute> routes_;
};

struct RowCase {
  const char* path;
  const char* query;
  const char* json;
};
constexpr RowCase kCases[] = {
    {"/v1/modules", "page_token=t", R"({"nextPageToken":"t"})"},
    {"/v1/modules/m", "", R"({"name":"modules/m"})"},
    {"/v1/deployments", "page_token=t", R"({"nextPageToken":"t"})"},
    {"/v1/deployments/d", "", R"({"name":"deployments/d"})"},
    {"/v1/deployments/d:explain", "fqn=a.b", R"({"fqn":"a.b"})"},
    {"/v1/deployments/d/programs", "", R"({"nextPageToken":"deployments/d"})"},
    {"/v1/deployments/d/programs/p", "",
     R"({"name":"deployments/d/programs/p"})"},
    {"/v1/deployments/d/steps", "after=7",
     R"({"nextPageToken":"deployments/d"})"},
    {"/v1/deployments/d/steps/7", "", R"({"name":"deployments/d/steps/7"})"},
    {"/v1/deployments/d/steps/7/timeline", "",
     R"({"name":"deployments/d/steps/7"})"},
    {"/v1/operations", "page_token=t", R"({"nextPageToken":"t"})"},
    {"/v1/operations/o", "", R"({"name":"operations/o"})"},
    {"/v1/events", "resource=workers/w", R"({"nextPageToken":"workers/w"})"},
};

TEST_F(HttpApiTest, EachPathCallsItsMethod) {
  for (const RowCase& row : kCases) {
    const HttpResponse response = Get(row.path, row.query);
    EXPECT_EQ(response.code, 200) << row.path << ": " << response.body;
    EXPECT_EQ(response.body, row.json) << row.path;
  }
}

TEST_F(HttpApiTest, ParametersAndFields) {
  EXPECT_EQ(
      Get("/v1/workers", "page_size=3").body,
      R"({"workers":[{"name":"workers/a","rank":3},{"name":"workers/b","rank":3}]})");
  EXPECT_EQ(Get("/v1/workers", "page_size=3&fields=workers.rank").body,
            R"({"workers":[{"rank":3},{"rank":3}]})");
  EXPECT_EQ(
      Get("/v1/workers",
          "page_size=3&fields=workers.rank,nextPageToken&fields=workers.name")
          .body,
      Get("/v1/workers", "page_size=3").body);
}

TEST_F(HttpApiTest, ErrorsAreThoseOfTheService) {
  const HttpResponse response = Get("/v1/workers/w9");
  EXPECT_EQ(response.code, 404);
  EXPECT_THAT(response.body,
              AllOf(HasSubstr(R"("reason":"GONE")"), HasSubstr("workers/w9")));
}

TEST_F(HttpApiTest, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(Get("/v1/nothing").code, 404);
  EXPECT_EQ(Get("/v1/workers/w/x").code, 404);
  EXPECT_EQ(Get("/v1/workers", "size=3").code, 400);
  EXPECT_EQ(Get("/v1/workers", "page_size=%").code, 400);
  EXPECT_EQ(Get("/v1/workers", "fields=workers.x").code, 400);
  // The path says which: a query cannot say another.
  EXPECT_EQ(Get("/v1/modules/m", "name=modules/n").code, 400);
}

TEST_F(HttpApiTest, AWatchFromTheBeginningEndsWithItsBookmark) {
  EXPECT_EQ(Get("/v1/watch", "collections=workers").body,
            R"({"events":[{"type":"TYPE_ADDED","version":"1"},)"
            R"({"type":"TYPE_ADDED","version":"2"},)"
            R"({"type":"TYPE_BOOKMARK","version":"3"}]})");
}

TEST_F(HttpApiTest, AResumedWatchEndsWithTheFirstChange) {
  EXPECT_EQ(Get("/v1/watch", "resume_version=3").body,
            R"({"events":[{"type":"TYPE_BOOKMARK","version":"3"},)"
            R"({"type":"TYPE_MODIFIED","version":"4"}]})");
}

TEST_F(HttpApiTest, AWatchWithoutChangesEndsAfterItsTime) {
  const HttpResponse response = Get("/v1/watch", "resume_version=4&wait_ms=1");
  EXPECT_EQ(response.code, 200);
  EXPECT_EQ(response.body,
            R"({"events":[{"type":"TYPE_BOOKMARK","version":"3"}]})");
}

TEST_F(HttpApiTest, WatchErrors) {
  EXPECT_EQ(Get("/v1/watch", "resume_version=old").code, 400);
  EXPECT_THAT(Get("/v1/watch", "resume_version=old").body,
              HasSubstr(R"({"code":11,)"));
  EXPECT_EQ(Get("/v1/watch", "wait_ms=soon").code, 400);
  EXPECT_EQ(Get("/v1/watch", "wait_ms=-1").code, 400);
  EXPECT_EQ(Get("/v1/watch", "fields=events").code, 400);
}

TEST_F(HttpApiTest, EndWaitsEndsThemNowAndLater) {
  HttpResponse response;
  std::thread waiter([&] { response = Get("/v1/watch", "resume_version=4"); });
  service_.watching.WaitForNotification();
  api_->EndWaits();
  waiter.join();
  // The bookmark had come, or it had not.
  EXPECT_TRUE(response.code == 200 || response.code == 503);
  const HttpResponse later = Get("/v1/watch");
  EXPECT_EQ(later.code, 503);
  EXPECT_THAT(later.body, HasSubstr("SHUTTING_DOWN"));
  EXPECT_EQ(Get("/v1/workers").code, 200);
}

}  // namespace
}  // namespace shardplane
