// What there is: resources by name, lists, and how they change.
#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "client/client_call.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using Stub = pb::ShardingCoordinator::Stub;

}  // namespace

absl::StatusOr<pb::ModuleResource> Client::CreateModule(
    pb::CreateModuleRequest request) {
  return Call(&Stub::CreateModule, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::StatusOr<pb::ModuleResource> Client::GetModule(const std::string& name) {
  return Named(&Stub::GetModule, name);
}

absl::StatusOr<pb::ListModulesResponse> Client::ListModules() {
  return AllPages(&Stub::ListModules, pb::ListModulesRequest());
}

absl::Status Client::DeleteModule(pb::DeleteModuleRequest request) {
  return Call(&Stub::DeleteModule, WithRequestId(std::move(request)),
              options_.call_timeout)
      .status();
}

absl::StatusOr<pb::Deployment> Client::GetDeployment(const std::string& name) {
  return Named(&Stub::GetDeployment, name);
}

absl::StatusOr<pb::ListDeploymentsResponse> Client::ListDeployments() {
  return AllPages(&Stub::ListDeployments, pb::ListDeploymentsRequest());
}

absl::StatusOr<pb::Explanation> Client::ExplainDeployment(
    const pb::ExplainDeploymentRequest& request) {
  return Call(&Stub::ExplainDeployment, request, options_.call_timeout);
}

absl::StatusOr<pb::Program> Client::GetProgram(const std::string& name) {
  return Named(&Stub::GetProgram, name);
}

absl::StatusOr<pb::ListProgramsResponse> Client::ListPrograms(
    const std::string& parent) {
  pb::ListProgramsRequest request;
  request.set_parent(parent);
  return AllPages(&Stub::ListPrograms, std::move(request));
}

absl::StatusOr<pb::StepResult> Client::GetStep(const std::string& name) {
  return Named(&Stub::GetStep, name);
}

absl::StatusOr<pb::ListStepsResponse> Client::ListSteps(
    const std::string& parent, uint64_t after) {
  pb::ListStepsRequest request;
  request.set_parent(parent);
  request.set_after(after);
  return AllPages(&Stub::ListSteps, std::move(request));
}

absl::StatusOr<pb::StepTimeline> Client::GetStepTimeline(
    const std::string& name) {
  return Named(&Stub::GetStepTimeline, name);
}

absl::StatusOr<pb::WorkerNode> Client::GetWorker(const std::string& name) {
  return Named(&Stub::GetWorker, name);
}

absl::StatusOr<pb::ListWorkersResponse> Client::ListWorkers() {
  return AllPages(&Stub::ListWorkers, pb::ListWorkersRequest());
}

absl::StatusOr<pb::WorkerNode> Client::DrainWorker(
    pb::DrainWorkerRequest request) {
  return Call(&Stub::DrainWorker, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::StatusOr<pb::Operation> Client::GetOperation(const std::string& name) {
  return Named(&Stub::GetOperation, name);
}

absl::StatusOr<pb::ListOperationsResponse> Client::ListOperations() {
  return AllPages(&Stub::ListOperations, pb::ListOperationsRequest());
}

absl::StatusOr<pb::Operation> Client::WaitOperation(const std::string& name,
                                                    absl::Duration timeout) {
  // The answer travels, too, before the call's own deadline.
  const absl::Duration wait = std::min(timeout, 0.9 * options_.call_timeout);
  pb::WaitOperationRequest request;
  request.set_name(name);
  request.mutable_timeout()->set_seconds(absl::ToInt64Seconds(wait));
  request.mutable_timeout()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(wait - absl::Floor(wait, absl::Seconds(1)))));
  return Call(&Stub::WaitOperation, request, options_.call_timeout);
}

absl::StatusOr<pb::Operation> Client::CancelOperation(
    pb::CancelOperationRequest request) {
  return Call(&Stub::CancelOperation, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::StatusOr<pb::ListEventsResponse> Client::ListEvents(
    const std::string& resource) {
  pb::ListEventsRequest request;
  request.set_resource(resource);
  return AllPages(&Stub::ListEvents, std::move(request));
}

std::unique_ptr<WatchStream> Client::Watch(pb::WatchRequest request,
                                           WatchStreamOptions options) {
  if (options.sleep == nullptr) {
    options.sleep = options_.sleep;
  }
  return std::make_unique<WatchStream>(stub_.get(), std::move(request),
                                       std::move(options));
}

}  // namespace shardplane
