// A WorkerClient over gRPC.
#ifndef SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_
#define SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_

#include <memory>
#include <string>

#include "coordinator/worker_client.h"

namespace shardplane {

// Connects when it is first used. `address` is host:port.
std::shared_ptr<WorkerClient> ConnectToWorker(const std::string& address);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_
