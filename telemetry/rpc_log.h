// A line of log for the calls that a server serves.
#ifndef SHARDPLANE_TELEMETRY_RPC_LOG_H_
#define SHARDPLANE_TELEMETRY_RPC_LOG_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "telemetry/log.h"

namespace shardplane {

// One line when a call ends: method, code, seconds, the error's text; of its
// first message "request_id", "deployment" (also of "name", "parent" and
// "gang") and "step", where it has them; "trace_id" of its traceparent header.
// Calls that succeed, and those that a client gave up, are DEBUG; what is the
// caller's fault is INFO; UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS and
// DEADLINE_EXCEEDED are WARNING. Borrows `log`.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcLog(const Log* log);

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_RPC_LOG_H_
