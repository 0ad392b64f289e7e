// absl::Status <-> grpc::Status with google.rpc details. Nowhere else.
#ifndef SHARDPLANE_PROTO_GRPC_STATUS_H_
#define SHARDPLANE_PROTO_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace shardplane {

inline constexpr char kErrorDomain[] = "shardplane";

// The error model of AIP-193. Details: one ErrorInfo always (domain
// kErrorDomain; the reason of MakeError, else the code's name; all metadata);
// BadRequest where metadata has "field"; PreconditionFailure for
// FAILED_PRECONDITION (type: the reason, subject: metadata "subject", else
// "resource"); ResourceInfo for NOT_FOUND and ALREADY_EXISTS with "resource";
// RetryInfo where metadata has "retry_ms".
//
// What travels is bounded, since it goes in trailers: long messages and values
// are cut (they then end in "..."), values beyond the budget dropped, "field",
// "expected" and the like last; bytes that are not UTF-8 become "?".
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The same, serialized in `error_details` ("grpc-status-details-bin").
grpc::Status ToGrpcStatus(const absl::Status& status);

// The ways back: a status that carried an ErrorInfo is as MakeError made it, so
// that what goes worker -> coordinator -> client keeps its info; one of
// gRPC's own (a broken connection) has none. Details that do not parse are
// ignored.
absl::Status FromGrpcStatus(const grpc::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& status);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_GRPC_STATUS_H_
