// How the client makes a call: for the files of client.h alone.
#ifndef SHARDPLANE_CLIENT_CLIENT_CALL_H_
#define SHARDPLANE_CLIENT_CLIENT_CALL_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/request_id.h"
#include "proto/grpc_status.h"

namespace shardplane {

template <typename Request>
Request WithRequestId(Request request) {
  if (request.request_id().empty()) {
    request.set_request_id(NewRequestId());
  }
  return request;
}

template <typename Request, typename Response>
absl::StatusOr<Response> Client::Call(
    grpc::Status (v1::ShardingCoordinator::Stub::*method)(grpc::ClientContext*,
                                                          const Request&,
                                                          Response*),
    const Request& request, absl::Duration timeout) {
  Response response;
  absl::Status status = Retried(timeout, [&](grpc::ClientContext* context) {
    return FromGrpcStatus((stub_.get()->*method)(context, request, &response));
  });
  if (!status.ok()) {
    return status;
  }
  return response;
}

template <typename Request, typename Response>
absl::StatusOr<Response> Client::Named(
    grpc::Status (v1::ShardingCoordinator::Stub::*method)(grpc::ClientContext*,
                                                          const Request&,
                                                          Response*),
    const std::string& name) {
  Request request;
  request.set_name(name);
  return Call(method, request, options_.call_timeout);
}

template <typename Request, typename Response>
absl::StatusOr<Response> Client::AllPages(
    grpc::Status (v1::ShardingCoordinator::Stub::*method)(grpc::ClientContext*,
                                                          const Request&,
                                                          Response*),
    Request request) {
  constexpr int kLargestPage = 1000;
  request.set_page_size(kLargestPage);
  Response all;
  do {
    absl::StatusOr<Response> page =
        Call(method, request, options_.call_timeout);
    if (!page.ok()) {
      return page.status();
    }
    all.clear_next_page_token();
    all.MergeFrom(*page);  // items are appended
    request.set_page_token(all.next_page_token());
  } while (!all.next_page_token().empty());
  return all;
}

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_CLIENT_CALL_H_
