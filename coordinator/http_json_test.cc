#include "coordinator/http_json.h"

#include <string>

#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardplane/v1/coordinator.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FillRequestTest, SetsFieldsByEitherName) {
  pb::ListStepsRequest request;
  EXPECT_THAT(FillRequest({{"page_size", "10"},
                           {"pageToken", "a\"b\\"},
                           {"after", "18446744073709551615"}},
                          &request),
              IsOk());
  EXPECT_EQ(request.page_size(), 10);
  EXPECT_EQ(request.page_token(), "a\"b\\");
  EXPECT_EQ(request.after(), 18446744073709551615u);
}

TEST(FillRequestTest, RepeatedFieldsComeSeveralTimes) {
  pb::WatchRequest request;
  EXPECT_THAT(FillRequest({{"collections", "workers"},
                           {"name", "workers/w"},
                           {"collections", "events"}},
                          &request),
              IsOk());
  EXPECT_THAT(request.collections(), ElementsAre("workers", "events"));
}

TEST(FillRequestTest, RefusesWhatDoesNotFit) {
  const HttpParameters cases[] = {{{"size", "10"}},
                                  {{"page_size", "many"}},
                                  {{"page_size", "99999999999"}},
                                  {{"page_token", "a"}, {"page_token", "b"}}};
  for (const HttpParameters& parameters : cases) {
    pb::ListStepsRequest request;
    EXPECT_THAT(FillRequest(parameters, &request),
                StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_))
        << parameters[0].first << "=" << parameters[0].second;
  }
}

pb::Deployment Example() {
  pb::Deployment deployment;
  deployment.set_name("deployments/d");
  deployment.set_seed(3);
  (*deployment.mutable_labels())["team"] = "a";
  for (const char* fqn : {"net1", "net2"}) {
    auto& module = *deployment.mutable_module()->add_modules();
    module.set_fqn(fqn);
    module.set_type("torch.nn.Linear");
    module.mutable_graph()->add_nodes()->set_name("x");
  }
  return deployment;
}

TEST(KeepFieldsTest, GoesIntoRepeatedMessages) {
  pb::Deployment deployment = Example();
  EXPECT_THAT(KeepFields({"name", "labels", "module.modules.fqn"}, &deployment),
              IsOk());
  pb::Deployment expected;
  expected.set_name("deployments/d");
  (*expected.mutable_labels())["team"] = "a";
  expected.mutable_module()->add_modules()->set_fqn("net1");
  expected.mutable_module()->add_modules()->set_fqn("net2");
  EXPECT_EQ(deployment.DebugString(), expected.DebugString());
}

TEST(KeepFieldsTest, WithoutPathsAllStays) {
  pb::Deployment deployment = Example();
  EXPECT_THAT(KeepFields({}, &deployment), IsOk());
  EXPECT_EQ(deployment.DebugString(), Example().DebugString());
}

TEST(KeepFieldsTest, TakesJsonNamesAndRefusesOthers) {
  pb::Deployment deployment = Example();
  deployment.set_last_step(4);
  EXPECT_THAT(KeepFields({"lastStep"}, &deployment), IsOk());
  EXPECT_EQ(deployment.last_step(), 4);
  EXPECT_EQ(deployment.name(), "");
  for (const char* path : {"", "nothing", "name.x", "labels.team", "module."}) {
    EXPECT_THAT(KeepFields({path}, &deployment),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got:")))
        << path;
  }
}

TEST(JsonResponseTest, WritesProtoJson) {
  pb::Deployment deployment;
  deployment.set_last_step(4);
  deployment.set_state(pb::Deployment::STATE_READY);
  const HttpResponse response = JsonResponse(deployment);
  EXPECT_EQ(response.code, 200);
  EXPECT_EQ(response.content_type, "application/json; charset=utf-8");
  EXPECT_EQ(response.body, R"({"state":"STATE_READY","lastStep":"4"})");
}

TEST(ErrorResponseTest, IsAStatusWithItsDetails) {
  const HttpResponse response = ErrorResponse(
      MakeError(absl::StatusCode::kNotFound, "no such worker; got: w9",
                {.reason = "WORKER_NOT_FOUND",
                 .metadata = {{"resource", "workers/w9"}}}));
  EXPECT_EQ(response.code, 404);
  EXPECT_THAT(
      response.body,
      AllOf(HasSubstr(R"({"code":5,"message":"no such worker; got: w9")"),
            HasSubstr(R"("@type":"type.googleapis.com/google.rpc.ErrorInfo")"),
            HasSubstr(R"("reason":"WORKER_NOT_FOUND")")));
}

TEST(ErrorResponseTest, EveryCodeHasAnHttpCode) {
  for (int code = 1; code <= 16; ++code) {
    const HttpResponse response =
        ErrorResponse(absl::Status(static_cast<absl::StatusCode>(code), "x"));
    EXPECT_GE(response.code, 400) << code;
    EXPECT_LE(response.code, 504) << code;
  }
  EXPECT_EQ(ErrorResponse(absl::UnavailableError("x")).code, 503);
  EXPECT_EQ(ErrorResponse(absl::AbortedError("x")).code, 409);
  EXPECT_EQ(ErrorResponse(absl::UnimplementedError("x")).code, 501);
}

}  // namespace
}  // namespace shardplane
