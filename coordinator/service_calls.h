// What the methods of a service have in common.
#ifndef SHARDPLANE_COORDINATOR_SERVICE_CALLS_H_
#define SHARDPLANE_COORDINATOR_SERVICE_CALLS_H_

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "coordinator/deterministic.h"
#include "coordinator/digest.h"
#include "coordinator/request_log.h"
#include "grpcpp/server_context.h"
#include "proto/grpc_status.h"

namespace shardplane {

// The call's "traceparent" header, as W3C Trace Context 1 has it; "" if there
// is none, or another thing by that name.
//   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
std::string TraceparentOf(const grpc::ServerContextBase& context);

// A call without a deadline waits at most this long for its turn.
inline constexpr absl::Duration kLongestWait = absl::Minutes(10);

inline CallContext MakeContext(grpc::ServerContext* context) {
  return {.deadline = std::min(absl::FromChrono(context->deadline()),
                               absl::Now() + kLongestWait),
          .cancelled = [context] { return context->IsCancelled(); },
          .traceparent = TraceparentOf(*context)};
}

// An answer as a status and a message.
template <typename Response>
grpc::Status Reply(absl::StatusOr<Response> answer, Response* response) {
  if (!answer.ok()) {
    return ToGrpcStatus(answer.status());
  }
  *response = *std::move(answer);
  return grpc::Status::OK;
}

// A write: `call` runs once for each request id, and everybody who brings the
// id and `digest` gets its answer. `digest` is not read without an id.
template <typename Response, typename Call>
grpc::Status ReplyOnce(RequestLog* log, grpc::ServerContext* context,
                       const std::string& request_id, const std::string& digest,
                       Response* response, const Call& call) {
  const CallContext call_context = MakeContext(context);
  bool ran = false;
  const absl::StatusOr<std::string> answer =
      log->Run(request_id, digest, call_context.deadline,
               [&]() -> absl::StatusOr<std::string> {
                 ran = true;
                 absl::StatusOr<Response> made = call(call_context);
                 SP_RETURN_IF_ERROR(made.status());
                 *response = *std::move(made);
                 // Without an id nobody will ask again.
                 return request_id.empty() ? std::string()
                                           : response->SerializeAsString();
               });
  if (!answer.ok()) {
    return ToGrpcStatus(answer.status());
  }
  if (!ran && !response->ParseFromString(*answer)) {
    return ToGrpcStatus(absl::InternalError("a recorded answer is damaged"));
  }
  return grpc::Status::OK;
}

// The same with the digest of the whole request. `kind` tells requests of
// different methods apart.
template <typename Request, typename Response, typename Call>
grpc::Status ReplyOnce(RequestLog* log, grpc::ServerContext* context,
                       const Request& request, const char* kind,
                       Response* response, const Call& call) {
  std::string digest;
  if (!request.request_id().empty()) {
    Request body = request;
    body.clear_request_id();
    digest = Digest(absl::StrCat(kind, "\n", SerializeDeterministic(body)));
  }
  return ReplyOnce(log, context, request.request_id(), digest, response, call);
}

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_SERVICE_CALLS_H_
