// Messages of the API as JSON over HTTP, as google.api.http has them.
#ifndef SHARDPLANE_COORDINATOR_HTTP_JSON_H_
#define SHARDPLANE_COORDINATOR_HTTP_JSON_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "coordinator/http_path.h"
#include "google/protobuf/message.h"
#include "telemetry/http_server.h"

namespace shardplane {

// Sets the fields that `parameters` name, of scalar or string types, or
// repeated ones of these, named several times. InvalidArgument: no such field,
// no such value, the same field twice.
//   {"page_size", "10"} -> request.page_size = 10; "pageSize" means it, too.
absl::Status FillRequest(const HttpParameters& parameters,
                         google::protobuf::Message* request);

// Leaves the fields that `paths` name, of each element where they are repeated;
// all, if there are no paths. Names as in the .proto file or in JSON.
// InvalidArgument: no such field.
//   {"workers.name"} -> of ListWorkersResponse the names alone
absl::Status KeepFields(const std::vector<std::string>& paths,
                        google::protobuf::Message* message);

// 200 with the message; fields that have their default are left out.
HttpResponse JsonResponse(const google::protobuf::Message& message);

// A google.rpc.Status, details and all, with the HTTP code that its code has.
HttpResponse ErrorResponse(const absl::Status& status);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_HTTP_JSON_H_
