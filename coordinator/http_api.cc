#include "coordinator/http_api.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/http_json.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using Stub = pb::ShardingCoordinator::Stub;

// For an answer that is there already to come.
constexpr absl::Duration kShortestWait = absl::Milliseconds(100);

// What a request asks for, its fields as parameters.
struct ReadCall {
  HttpParameters parameters;
  std::vector<std::string> fields;
};

template <typename Request, typename Response>
using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&,
                                      Response*);

template <typename Request, typename Response, Method<Request, Response> method>
HttpResponse Unary(Stub& stub, grpc::ClientContext* context,
                   const ReadCall& call) {
  Request request;
  absl::Status status = FillRequest(call.parameters, &request);
  Response response;
  if (status.ok()) {
    status = FromGrpcStatus((stub.*method)(context, request, &response));
  }
  if (status.ok()) status = KeepFields(call.fields, &response);
  return status.ok() ? JsonResponse(response) : ErrorResponse(status);
}

struct Row {
  absl::string_view pattern;
  HttpResponse (*call)(Stub&, grpc::ClientContext*, const ReadCall&);
};

// A method of the API, with its request and its response.
#define SHARDPLANE_READS(name, response) \
  Unary<pb::name##Request, pb::response, &Stub::name>

// The first that fits answers.
constexpr Row kRows[] = {
    {"/v1/workers", SHARDPLANE_READS(ListWorkers, ListWorkersResponse)},
    {"/v1/{name=workers/*}", SHARDPLANE_READS(GetWorker, WorkerNode)},
    {"/v1/modules", SHARDPLANE_READS(ListModules, ListModulesResponse)},
    {"/v1/{name=modules/*}", SHARDPLANE_READS(GetModule, ModuleResource)},
    {"/v1/deployments",
     SHARDPLANE_READS(ListDeployments, ListDeploymentsResponse)},
    {"/v1/{name=deployments/*}:explain",
     SHARDPLANE_READS(ExplainDeployment, Explanation)},
    {"/v1/{name=deployments/*}", SHARDPLANE_READS(GetDeployment, Deployment)},
    {"/v1/{parent=deployments/*}/programs",
     SHARDPLANE_READS(ListPrograms, ListProgramsResponse)},
    {"/v1/{name=deployments/*/programs/*}",
     SHARDPLANE_READS(GetProgram, Program)},
    {"/v1/{parent=deployments/*}/steps",
     SHARDPLANE_READS(ListSteps, ListStepsResponse)},
    {"/v1/{name=deployments/*/steps/*}", SHARDPLANE_READS(GetStep, StepResult)},
    {"/v1/{name=deployments/*/steps/*}/timeline",
     SHARDPLANE_READS(GetStepTimeline, StepTimeline)},
    {"/v1/operations",
     SHARDPLANE_READS(ListOperations, ListOperationsResponse)},
    {"/v1/{name=operations/*}", SHARDPLANE_READS(GetOperation, Operation)},
    {"/v1/events", SHARDPLANE_READS(ListEvents, ListEventsResponse)},
};
#undef SHARDPLANE_READS

// Takes those of that name out of `parameters`.
std::vector<std::string> Take(absl::string_view name,
                              HttpParameters& parameters) {
  std::vector<std::string> values;
  const auto kept =
      std::stable_partition(parameters.begin(), parameters.end(),
                            [name](const auto& p) { return p.first != name; });
  for (auto it = kept; it != parameters.end(); ++it) {
    values.push_back(std::move(it->second));
  }
  parameters.erase(kept, parameters.end());
  return values;
}

absl::StatusOr<absl::Duration> TakeWait(absl::Duration limit,
                                        HttpParameters& parameters) {
  absl::Duration wait = limit;
  for (const std::string& text : Take("wait_ms", parameters)) {
    int64_t ms = 0;
    if (!absl::SimpleAtoi(text, &ms) || ms < 0) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("wait_ms: expected a number of "
                                    "milliseconds, 0 or more; got: ",
                                    text),
                       {.reason = "WAIT_INVALID", .metadata = {}});
    }
    wait = std::clamp(absl::Milliseconds(ms), std::min(kShortestWait, limit),
                      limit);
  }
  return wait;
}

// Whether `response` is worth an answer: something has changed or, of a watch
// from the beginning, all that there is has come.
bool IsEnough(const pb::WatchRequest& request,
              const pb::WatchResponse& response) {
  const auto is_bookmark = [](const pb::WatchEvent& event) {
    return event.type() == pb::WatchEvent::TYPE_BOOKMARK;
  };
  const auto& events = response.events();
  return request.resume_version().empty()
             ? std::any_of(events.begin(), events.end(), is_bookmark)
             : !std::all_of(events.begin(), events.end(), is_bookmark);
}

absl::Status Ended() {
  return MakeError(absl::StatusCode::kUnavailable, "the coordinator shuts down",
                   {.reason = "SHUTTING_DOWN", .metadata = {}});
}

}  // namespace

// A call that EndWaits can end, from its beginning to its end.
class HttpApi::Wait {
 public:
  Wait(HttpApi* api, absl::Duration limit) : api_(*api) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + limit));
    absl::MutexLock lock(&api_.mutex_);
    api_.waits_.insert(&context_);
    if (api_.ended_) context_.TryCancel();
  }
  ~Wait() {
    absl::MutexLock lock(&api_.mutex_);
    api_.waits_.erase(&context_);
  }
  grpc::ClientContext& context() { return context_; }
  bool ended() const {
    absl::MutexLock lock(&api_.mutex_);
    return api_.ended_;
  }

 private:
  HttpApi& api_;
  grpc::ClientContext context_;
};

HttpApi::HttpApi(Options options)
    : options_(std::move(options)),
      stub_(pb::ShardingCoordinator::NewStub(options_.channel)) {}

std::vector<HttpRoute> HttpApi::Routes() {
  return {{"/v1/", [this](const HttpRequest& request) { return Get(request); },
           options_.max_calls},
          {"/v1/watch",
           [this](const HttpRequest& request) { return Watch(request); },
           options_.max_waits}};
}

void HttpApi::EndWaits() {
  absl::MutexLock lock(&mutex_);
  ended_ = true;
  for (grpc::ClientContext* context : waits_) context->TryCancel();
}

HttpResponse HttpApi::Get(const HttpRequest& request) {
  for (const Row& row : kRows) {
    std::optional<HttpParameters> path = MatchPath(row.pattern, request.path);
    if (!path.has_value()) continue;
    absl::StatusOr<HttpParameters> query = ParseQuery(request.query);
    if (!query.ok()) return ErrorResponse(query.status());
    ReadCall call;
    for (const std::string& fields : Take("fields", *query)) {
      for (absl::string_view field : absl::StrSplit(fields, ',')) {
        call.fields.push_back(std::string(field));
      }
    }
    call.parameters = *std::move(path);
    call.parameters.insert(call.parameters.end(), query->begin(), query->end());
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.call_limit));
    return row.call(*stub_, &context, call);
  }
  return ErrorResponse(
      MakeError(absl::StatusCode::kNotFound,
                absl::StrCat("no such path of the API; got: ", request.path),
                {.reason = "PATH_UNKNOWN", .metadata = {}}));
}

HttpResponse HttpApi::Watch(const HttpRequest& request) {
  absl::StatusOr<HttpParameters> query = ParseQuery(request.query);
  if (!query.ok()) return ErrorResponse(query.status());
  pb::WatchResponse response;
  const absl::Status status = ReadWatch(*std::move(query), &response);
  return status.ok() ? JsonResponse(response) : ErrorResponse(status);
}

absl::Status HttpApi::ReadWatch(HttpParameters parameters,
                                pb::WatchResponse* response) {
  SP_ASSIGN_OR_RETURN(const absl::Duration limit,
                      TakeWait(options_.wait_limit, parameters));
  pb::WatchRequest request;
  SP_RETURN_IF_ERROR(FillRequest(parameters, &request));
  Wait wait(this, limit);
  const auto reader = stub_->Watch(&wait.context(), request);
  pb::WatchResponse more;
  bool enough = false;
  while (!enough && reader->Read(&more)) {
    response->MergeFrom(more);
    enough = IsEnough(request, *response);
  }
  // Otherwise it has ended by itself, and says why.
  if (enough) wait.context().TryCancel();
  const grpc::Status status = reader->Finish();
  // What has come counts, also where the watch broke behind it: who asks again
  // learns why.
  if (enough || response->events_size() > 0) return absl::OkStatus();
  if (wait.ended()) return Ended();
  return status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED
             ? absl::OkStatus()
             : FromGrpcStatus(status);
}

}  // namespace shardplane
