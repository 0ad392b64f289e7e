#include "coordinator/registry_service.h"

#include "proto/grpc_status.h"

namespace shardplane {
namespace {

template <typename Response>
grpc::Status GiveLease(const absl::StatusOr<Coordinator::Lease>& lease,
                       Response* response) {
  if (!lease.ok()) {
    return ToGrpcStatus(lease.status());
  }
  response->set_coordinator_incarnation(lease->coordinator.value);
  response->set_lease_ms(absl::ToInt64Milliseconds(lease->duration));
  return grpc::Status::OK;
}

}  // namespace

grpc::Status RegistryService::RegisterWorker(
    grpc::ServerContext*, const v1::RegisterWorkerRequest* request,
    v1::RegisterWorkerResponse* response) {
  return GiveLease(coordinator_->RegisterWorker(
                       {.id = WorkerId{request->worker_id()},
                        .incarnation = Incarnation{request->incarnation()},
                        .address = request->address(),
                        .http_address = request->http_address(),
                        .device = request->device()}),
                   response);
}

grpc::Status RegistryService::RenewLease(grpc::ServerContext*,
                                         const v1::RenewLeaseRequest* request,
                                         v1::RenewLeaseResponse* response) {
  const LeaseRequest wish = request->retired()    ? LeaseRequest::kRetire
                            : request->draining() ? LeaseRequest::kDrain
                                                  : LeaseRequest::kRenew;
  return GiveLease(
      coordinator_->RenewLease(WorkerId{request->worker_id()},
                               Incarnation{request->incarnation()}, wish),
      response);
}

}  // namespace shardplane
