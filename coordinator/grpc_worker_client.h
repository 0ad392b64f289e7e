// A WorkerClient over gRPC.
#ifndef SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_
#define SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_

#include <memory>
#include <string>

#include "coordinator/worker_client.h"

namespace shardplane {

// Connects when it is first used. `address` is host:port. `local_steps`: Step
// goes to a worker of this machine over a local socket, where there is one
// (coordinator/local_step_stream.h).
std::shared_ptr<WorkerClient> ConnectToWorker(const std::string& address,
                                              bool local_steps = true);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_GRPC_WORKER_CLIENT_H_
