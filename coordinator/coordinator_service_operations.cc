// The methods on operations, events, steps' history, watches.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/messages.h"
#include "coordinator/operation_messages.h"
#include "coordinator/page.h"
#include "coordinator/service_calls.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

grpc::Status CoordinatorService::GetOperation(
    grpc::ServerContext*, const pb::GetOperationRequest* request,
    pb::Operation* response) {
  const auto get = [&]() -> absl::StatusOr<pb::Operation> {
    SP_ASSIGN_OR_RETURN(const OperationId id,
                        ParseOperationName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const OperationRecord record,
                        coordinator_->GetOperation(id));
    return ToProto(record);
  };
  return Reply(get(), response);
}

grpc::Status CoordinatorService::ListOperations(
    grpc::ServerContext*, const pb::ListOperationsRequest* request,
    pb::ListOperationsResponse* response) {
  const absl::StatusOr<PageRequest> page =
      ParsePage(request->page_size(), request->page_token(), "operations");
  if (!page.ok()) return ToGrpcStatus(page.status());
  response->set_next_page_token(
      AddPage(coordinator_->ListOperations(), *page, "operations", IdOf,
              [response](const OperationRecord& record) {
                *response->add_operations() = ToProto(record);
              }));
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::WaitOperation(
    grpc::ServerContext* context, const pb::WaitOperationRequest* request,
    pb::Operation* response) {
  const auto wait = [&]() -> absl::StatusOr<pb::Operation> {
    SP_ASSIGN_OR_RETURN(const OperationId id,
                        ParseOperationName(request->name(), "name"));
    CallContext call = MakeContext(context);
    if (request->has_timeout()) {
      call.deadline =
          std::min(call.deadline,
                   absl::Now() + absl::Seconds(request->timeout().seconds()) +
                       absl::Nanoseconds(request->timeout().nanos()));
    }
    SP_ASSIGN_OR_RETURN(const OperationRecord record,
                        coordinator_->WaitOperation(id, call));
    return ToProto(record);
  };
  return Reply(wait(), response);
}

grpc::Status CoordinatorService::CancelOperation(
    grpc::ServerContext* context, const pb::CancelOperationRequest* request,
    pb::Operation* response) {
  return ReplyOnce(log_, context, *request, "CancelOperation", response,
                   [&](const CallContext&) -> absl::StatusOr<pb::Operation> {
                     SP_ASSIGN_OR_RETURN(
                         const OperationId id,
                         ParseOperationName(request->name(), "name"));
                     SP_ASSIGN_OR_RETURN(const OperationRecord record,
                                         coordinator_->CancelOperation(id));
                     return ToProto(record);
                   });
}

grpc::Status CoordinatorService::DrainWorker(
    grpc::ServerContext* context, const pb::DrainWorkerRequest* request,
    pb::WorkerNode* response) {
  return ReplyOnce(
      log_, context, *request, "DrainWorker", response,
      [&](const CallContext&) -> absl::StatusOr<pb::WorkerNode> {
        SP_ASSIGN_OR_RETURN(const WorkerId id,
                            ParseWorkerName(request->name(), "name"));
        SP_ASSIGN_OR_RETURN(const WorkerRecord worker,
                            coordinator_->DrainWorker(id, request->undo()));
        return ToProto(worker);
      });
}

grpc::Status CoordinatorService::ListEvents(
    grpc::ServerContext*, const pb::ListEventsRequest* request,
    pb::ListEventsResponse* response) {
  const std::string collection =
      absl::StrCat("events of ", request->resource());
  const absl::StatusOr<PageRequest> page =
      ParsePage(request->page_size(), request->page_token(), collection);
  if (!page.ok()) return ToGrpcStatus(page.status());
  std::vector<EventRecord> events = coordinator_->bulletin().Events();
  std::erase_if(events, [request](const EventRecord& event) {
    return !request->resource().empty() &&
           event.resource != request->resource();
  });
  response->set_next_page_token(AddPage(
      events, *page, collection, IdOf, [response](const EventRecord& event) {
        *response->add_events() = ToProto(event);
      }));
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::ListSteps(grpc::ServerContext*,
                                           const pb::ListStepsRequest* request,
                                           pb::ListStepsResponse* response) {
  const auto list = [&]() -> absl::StatusOr<pb::ListStepsResponse> {
    SP_ASSIGN_OR_RETURN(const DeploymentId id,
                        ParseDeploymentName(request->parent(), "parent"));
    const std::string collection =
        absl::StrCat(request->parent(), "/steps after ", request->after());
    SP_ASSIGN_OR_RETURN(
        const PageRequest page,
        ParsePage(request->page_size(), request->page_token(), collection));
    StepNumber after{request->after()};
    if (!page.after.empty() && !absl::SimpleAtoi(page.after, &after.value)) {
      return absl::InternalError("a page token of steps has no number");
    }
    SP_ASSIGN_OR_RETURN(
        std::vector<StepAnswer> steps,
        coordinator_->ListSteps(id, after, static_cast<size_t>(page.size) + 1));
    pb::ListStepsResponse message;
    if (steps.size() > static_cast<size_t>(page.size)) {
      steps.pop_back();
      message.set_next_page_token(
          MakePageToken(collection, absl::StrCat(steps.back().number.value)));
    }
    for (const StepAnswer& step : steps) {
      *message.add_steps() = Summary(id, step);
    }
    return message;
  };
  return Reply(list(), response);
}

grpc::Status CoordinatorService::GetStepTimeline(
    grpc::ServerContext*, const pb::GetStepTimelineRequest* request,
    pb::StepTimeline* response) {
  const auto get = [&]() -> absl::StatusOr<pb::StepTimeline> {
    SP_ASSIGN_OR_RETURN(const StepName name,
                        ParseStepName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(
        const StepTrace trace,
        coordinator_->GetStepTimeline(name.deployment, name.number));
    return ToProto(name.deployment, trace);
  };
  return Reply(get(), response);
}

grpc::ServerWriteReactor<pb::WatchResponse>* CoordinatorService::Watch(
    grpc::CallbackServerContext*, const pb::WatchRequest* request) {
  return watches_.Start(*request);
}

}  // namespace shardplane
