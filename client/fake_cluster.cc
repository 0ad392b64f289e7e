#include "client/fake_cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/error_info.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr size_t kPage = 2;

grpc::Status NotFound(absl::string_view name) {
  google::rpc::ErrorInfo info;
  info.set_reason("NOT_THERE");
  (*info.mutable_metadata())["resource"] = std::string(name);
  return ToGrpcStatus(
      ClientError(absl::StatusCode::kNotFound, info,
                  absl::StrCat("expected a resource, got: ", name)));
}

bool IsOf(absl::string_view name, absl::string_view parent) {
  return absl::StartsWith(name, absl::StrCat(parent, "/"));
}

template <typename Resource>
grpc::Status Find(const std::vector<Resource>& all, const std::string& name,
                  Resource* found) {
  for (const Resource& resource : all) {
    if (resource.name() == name) {
      *found = resource;
      return grpc::Status::OK;
    }
  }
  return NotFound(name);
}

// The page that begins at the index `token`; returns the next one's token.
template <typename Resource, typename Keep, typename Repeated>
std::string Page(const std::vector<Resource>& all, const Keep& keep,
                 const std::string& token, Repeated* page) {
  size_t begin = 0;
  (void)absl::SimpleAtoi(token, &begin);  // "": the first
  for (size_t i = begin; i < all.size(); ++i) {
    if (page->size() == kPage) {
      return absl::StrCat(i);
    }
    if (keep(all[i])) {
      *page->Add() = all[i];
    }
  }
  return "";
}

}  // namespace

FakeCluster::FakeCluster(FakeResources resources)
    : resources_(std::move(resources)) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeCluster::~FakeCluster() {
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

FakeResources FakeCluster::resources() const {
  absl::MutexLock lock(&mu_);
  return resources_;
}

void FakeCluster::SetResources(FakeResources resources) {
  absl::MutexLock lock(&mu_);
  resources_ = std::move(resources);
}

void FakeCluster::FailNext(const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  failures_.push_back(status);
}

void FakeCluster::LacksNewMethods() {
  absl::MutexLock lock(&mu_);
  lacks_new_ = true;
}

void FakeCluster::SetWaits(std::vector<pb::Operation> operations) {
  absl::MutexLock lock(&mu_);
  waits_.assign(operations.begin(), operations.end());
}

void FakeCluster::AddWatch(FakeWatch watch) {
  absl::MutexLock lock(&mu_);
  watches_.push_back(std::move(watch));
}

std::vector<pb::WatchRequest> FakeCluster::watches() const {
  absl::MutexLock lock(&mu_);
  return watched_;
}

std::vector<pb::CreateDeploymentRequest> FakeCluster::created() const {
  absl::MutexLock lock(&mu_);
  return created_;
}

void FakeCluster::SetPlanned(pb::Deployment planned) {
  absl::MutexLock lock(&mu_);
  planned_ = std::move(planned);
}

grpc::Status FakeCluster::Next() {
  if (failures_.empty()) {
    return grpc::Status::OK;
  }
  const grpc::Status status = failures_.front();
  failures_.pop_front();
  return status;
}

grpc::Status FakeCluster::NextOfNew() {
  return lacks_new_ ? grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "")
                    : Next();
}

grpc::Status FakeCluster::CreateDeployment(
    grpc::ServerContext*, const pb::CreateDeploymentRequest* request,
    pb::Deployment* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const std::string name =
      absl::StrCat("deployments/", request->deployment_id());
  if (request->validate_only()) {
    *response = planned_;
    response->set_name(name);
    return grpc::Status::OK;
  }
  created_.push_back(*request);
  *response = request->deployment();
  response->set_name(name);
  response->set_state(pb::Deployment::STATE_AWAITING_DATA);
  resources_.deployments.push_back(*response);
  return grpc::Status::OK;
}

grpc::Status FakeCluster::MaterializeDeployment(
    grpc::ServerContext*, const pb::MaterializeDeploymentRequest* request,
    pb::Deployment* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  grpc::Status status = Find(resources_.deployments, request->name(), response);
  if (request->no_wait() && !waits_.empty()) {
    response->set_state(pb::Deployment::STATE_MATERIALIZING);
    response->set_operation(waits_.front().name());
  } else {
    response->set_state(pb::Deployment::STATE_READY);
  }
  return status;
}

grpc::Status FakeCluster::DeleteDeployment(
    grpc::ServerContext*, const pb::DeleteDeploymentRequest* request,
    google::protobuf::Empty*) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const auto removed = std::erase_if(
      resources_.deployments,
      [&](const pb::Deployment& d) { return d.name() == request->name(); });
  return removed > 0 || request->allow_missing() ? grpc::Status::OK
                                                 : NotFound(request->name());
}

grpc::Status FakeCluster::GetDeployment(grpc::ServerContext*,
                                        const pb::GetDeploymentRequest* request,
                                        pb::Deployment* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  return Find(resources_.deployments, request->name(), response);
}

grpc::Status FakeCluster::ListDeployments(
    grpc::ServerContext*, const pb::ListDeploymentsRequest* request,
    pb::ListDeploymentsResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const auto keep = [](const pb::Deployment&) { return true; };
  response->set_next_page_token(Page(resources_.deployments, keep,
                                     request->page_token(),
                                     response->mutable_deployments()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::GetModule(grpc::ServerContext*,
                                    const pb::GetModuleRequest* request,
                                    pb::ModuleResource* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  return Find(resources_.modules, request->name(), response);
}

grpc::Status FakeCluster::ListModules(grpc::ServerContext*,
                                      const pb::ListModulesRequest* request,
                                      pb::ListModulesResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const auto keep = [](const pb::ModuleResource&) { return true; };
  response->set_next_page_token(Page(resources_.modules, keep,
                                     request->page_token(),
                                     response->mutable_modules()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::GetProgram(grpc::ServerContext*,
                                     const pb::GetProgramRequest* request,
                                     pb::Program* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  return Find(resources_.programs, request->name(), response);
}

grpc::Status FakeCluster::ListPrograms(grpc::ServerContext*,
                                       const pb::ListProgramsRequest* request,
                                       pb::ListProgramsResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const auto keep = [request](const pb::Program& p) {
    return IsOf(p.name(), request->parent());
  };
  response->set_next_page_token(Page(resources_.programs, keep,
                                     request->page_token(),
                                     response->mutable_programs()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::GetStep(grpc::ServerContext*,
                                  const pb::GetStepRequest* request,
                                  pb::StepResult* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  return Find(resources_.steps, request->name(), response);
}

grpc::Status FakeCluster::ListSteps(grpc::ServerContext*,
                                    const pb::ListStepsRequest* request,
                                    pb::ListStepsResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  const auto keep = [request](const pb::StepResult& s) {
    return IsOf(s.name(), request->parent()) && s.number() > request->after();
  };
  response->set_next_page_token(Page(resources_.steps, keep,
                                     request->page_token(),
                                     response->mutable_steps()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::GetStepTimeline(
    grpc::ServerContext*, const pb::GetStepTimelineRequest* request,
    pb::StepTimeline* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  return Find(resources_.timelines, absl::StrCat(request->name(), "/timeline"),
              response);
}

grpc::Status FakeCluster::GetWorker(grpc::ServerContext*,
                                    const pb::GetWorkerRequest* request,
                                    pb::WorkerNode* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  return Find(resources_.workers, request->name(), response);
}

grpc::Status FakeCluster::ListWorkers(grpc::ServerContext*,
                                      const pb::ListWorkersRequest* request,
                                      pb::ListWorkersResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = Next(); !status.ok()) return status;
  const auto keep = [](const pb::WorkerNode&) { return true; };
  response->set_next_page_token(Page(resources_.workers, keep,
                                     request->page_token(),
                                     response->mutable_workers()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::GetOperation(grpc::ServerContext*,
                                       const pb::GetOperationRequest* request,
                                       pb::Operation* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  return Find(resources_.operations, request->name(), response);
}

grpc::Status FakeCluster::ListOperations(
    grpc::ServerContext*, const pb::ListOperationsRequest* request,
    pb::ListOperationsResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  const auto keep = [](const pb::Operation&) { return true; };
  response->set_next_page_token(Page(resources_.operations, keep,
                                     request->page_token(),
                                     response->mutable_operations()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::ListEvents(grpc::ServerContext*,
                                     const pb::ListEventsRequest* request,
                                     pb::ListEventsResponse* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  const auto keep = [request](const pb::Event& e) {
    return request->resource().empty() || e.resource() == request->resource();
  };
  response->set_next_page_token(Page(resources_.events, keep,
                                     request->page_token(),
                                     response->mutable_events()));
  return grpc::Status::OK;
}

grpc::Status FakeCluster::DrainWorker(grpc::ServerContext*,
                                      const pb::DrainWorkerRequest* request,
                                      pb::WorkerNode* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  for (pb::WorkerNode& worker : resources_.workers) {
    if (worker.name() == request->name()) {
      worker.set_state(request->undo() ? pb::WorkerNode::STATE_READY
                                       : pb::WorkerNode::STATE_DRAINING);
    }
  }
  return Find(resources_.workers, request->name(), response);
}

grpc::Status FakeCluster::WaitOperation(grpc::ServerContext*,
                                        const pb::WaitOperationRequest* request,
                                        pb::Operation* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  if (waits_.empty()) {
    return Find(resources_.operations, request->name(), response);
  }
  *response = waits_.front();
  if (waits_.size() > 1) {
    waits_.pop_front();
  }
  return grpc::Status::OK;
}

grpc::Status FakeCluster::CancelOperation(
    grpc::ServerContext*, const pb::CancelOperationRequest* request,
    pb::Operation* response) {
  absl::MutexLock lock(&mu_);
  if (grpc::Status status = NextOfNew(); !status.ok()) return status;
  for (pb::Operation& operation : resources_.operations) {
    if (operation.name() == request->name()) {
      operation.set_state(pb::Operation::STATE_CANCELLED);
    }
  }
  return Find(resources_.operations, request->name(), response);
}

grpc::Status FakeCluster::Watch(grpc::ServerContext* context,
                                const pb::WatchRequest* request,
                                grpc::ServerWriter<pb::WatchResponse>* writer) {
  FakeWatch watch;
  {
    absl::MutexLock lock(&mu_);
    watched_.push_back(*request);
    if (grpc::Status status = NextOfNew(); !status.ok()) return status;
    if (watches_.empty()) {
      return grpc::Status(grpc::StatusCode::INTERNAL, "no watch was given");
    }
    watch = std::move(watches_.front());
    watches_.pop_front();
  }
  for (const pb::WatchResponse& message : watch.messages) {
    writer->Write(message);
  }
  while (watch.stays && !context->IsCancelled()) {
    // gRPC's synchronous services are told of a cancellation by nobody: ask.
    absl::SleepFor(absl::Milliseconds(5));
  }
  return watch.end;
}

}  // namespace shardplane
