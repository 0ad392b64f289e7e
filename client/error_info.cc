#include "client/error_info.h"

#include <utility>

#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "proto/grpc_status.h"

namespace shardplane {

google::rpc::ErrorInfo ErrorInfoOf(const absl::Status& status) {
  const google::rpc::Status rpc_status = ToRpcStatus(status);
  google::rpc::ErrorInfo info;
  for (const google::protobuf::Any& detail : rpc_status.details()) {
    if (detail.UnpackTo(&info)) {
      break;
    }
  }
  return info;
}

absl::Status ClientError(absl::StatusCode code, absl::string_view reason,
                         absl::string_view field, absl::string_view message) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  if (!field.empty()) {
    (*info.mutable_metadata())["field"] = std::string(field);
  }
  return ClientError(code, std::move(info), message);
}

absl::Status ClientError(absl::StatusCode code, google::rpc::ErrorInfo info,
                         absl::string_view message) {
  info.set_domain(kErrorDomain);
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  return FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(code),
                                     std::string(message),
                                     details.SerializeAsString()));
}

}  // namespace shardplane
