// shardplane.v1.WorkerRegistry over a Coordinator.
#ifndef SHARDPLANE_COORDINATOR_REGISTRY_SERVICE_H_
#define SHARDPLANE_COORDINATOR_REGISTRY_SERVICE_H_

#include "coordinator/coordinator.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// Thread-safe. Borrows the coordinator. Never waits for a deployment. Codes:
// Aborted (fenced incarnation), NotFound (register again), InvalidArgument. A
// repeated call is known by its incarnation, so that request ids need no log.
class RegistryService final : public v1::WorkerRegistry::Service {
 public:
  explicit RegistryService(Coordinator* coordinator)
      : coordinator_(coordinator) {}

  grpc::Status RegisterWorker(grpc::ServerContext* context,
                              const v1::RegisterWorkerRequest* request,
                              v1::RegisterWorkerResponse* response) override;
  grpc::Status RenewLease(grpc::ServerContext* context,
                          const v1::RenewLeaseRequest* request,
                          v1::RenewLeaseResponse* response) override;

 private:
  Coordinator* const coordinator_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_REGISTRY_SERVICE_H_
