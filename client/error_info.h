// The details of an error, beside its code and its sentence.
#ifndef SHARDPLANE_CLIENT_ERROR_INFO_H_
#define SHARDPLANE_CLIENT_ERROR_INFO_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"

namespace shardplane {

// `reason` is UPPER_SNAKE and stable, for programs to act on; `metadata` has
// the variable parts under stable keys: "field", "fqn", "expected", "remedy",
// "resource", "retry_ms", … An error without details, such as gRPC's own for a
// broken connection, has its code's name as the reason and no metadata.
//
//   INVALID_ARGUMENT from a plan:   TENSOR_SIZE_MISMATCH, field, expected
google::rpc::ErrorInfo ErrorInfoOf(const absl::Status& status);

// An error that the client finds by itself, with its details: metadata "field"
// unless `field` is empty.
absl::Status ClientError(absl::StatusCode code, absl::string_view reason,
                         absl::string_view field, absl::string_view message);
// The same with all its details; the domain is set here.
absl::Status ClientError(absl::StatusCode code, google::rpc::ErrorInfo info,
                         absl::string_view message);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_ERROR_INFO_H_
