// Metrics of the calls that a server serves (gRPC's proposal A66).
#ifndef SHARDPLANE_TELEMETRY_RPC_METRICS_H_
#define SHARDPLANE_TELEMETRY_RPC_METRICS_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "telemetry/metrics.h"

namespace shardplane {

// Counts calls started, and observes how long each took and how it ended:
// grpc_server_call_started_total, grpc_server_call_duration_seconds. Methods
// of services that are not ours count as "other". Borrows `metrics`.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMetrics(Metrics* metrics);

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_RPC_METRICS_H_
