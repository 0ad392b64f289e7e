#include "coordinator/http_json.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;
using ::google::protobuf::Struct;
using ::google::protobuf::Value;
using ::google::protobuf::util::JsonStringToMessage;
using ::google::protobuf::util::MessageToJsonString;

// No other site's page may load it.
HttpResponse Json() {
  return {.content_type = "application/json; charset=utf-8",
          .headers = {{"Cross-Origin-Resource-Policy", "same-origin"}}};
}

// As google/rpc/code.proto maps them.
const absl::btree_map<absl::StatusCode, int>& HttpCodes() {
  static const auto& codes = *new absl::btree_map<absl::StatusCode, int>{
      {absl::StatusCode::kOk, 200},
      {absl::StatusCode::kCancelled, 499},
      {absl::StatusCode::kUnknown, 500},
      {absl::StatusCode::kInvalidArgument, 400},
      {absl::StatusCode::kDeadlineExceeded, 504},
      {absl::StatusCode::kNotFound, 404},
      {absl::StatusCode::kAlreadyExists, 409},
      {absl::StatusCode::kPermissionDenied, 403},
      {absl::StatusCode::kUnauthenticated, 401},
      {absl::StatusCode::kResourceExhausted, 429},
      {absl::StatusCode::kFailedPrecondition, 400},
      {absl::StatusCode::kAborted, 409},
      {absl::StatusCode::kOutOfRange, 400},
      {absl::StatusCode::kUnimplemented, 501},
      {absl::StatusCode::kInternal, 500},
      {absl::StatusCode::kUnavailable, 503},
      {absl::StatusCode::kDataLoss, 500}};
  return codes;
}

absl::Status Bad(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = std::string(reason), .metadata = {}});
}

const FieldDescriptor* FindField(const Descriptor& type,
                                 const std::string& name) {
  const FieldDescriptor* field = type.FindFieldByName(name);
  return field != nullptr ? field : type.FindFieldByCamelcaseName(name);
}

// Names of fields, and of the fields within them: none means all.
struct FieldTree {
  // Of the standard library, since it may be a member of its own values.
  std::map<const FieldDescriptor*, FieldTree> fields;
};

absl::Status AddPath(const Descriptor& type, absl::string_view path,
                     FieldTree* tree) {
  const Descriptor* at = &type;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    const std::string name(part);
    const FieldDescriptor* field =
        at == nullptr ? nullptr : FindField(*at, name);
    if (field == nullptr) {
      return Bad("FIELD_UNKNOWN",
                 absl::StrCat("fields: expected paths of fields of ",
                              type.full_name(), "; got: ", path));
    }
    tree = &tree->fields[field];
    at = field->is_map() ? nullptr : field->message_type();
  }
  return absl::OkStatus();
}

void Keep(const FieldTree& tree, Message* message) {
  if (tree.fields.empty()) return;
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    const auto kept = tree.fields.find(field);
    if (kept == tree.fields.end()) {
      reflection.ClearField(message, field);
    } else if (kept->second.fields.empty()) {
      continue;
    } else if (!field->is_repeated()) {
      Keep(kept->second, reflection.MutableMessage(message, field));
    } else {
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        Keep(kept->second,
             reflection.MutableRepeatedMessage(message, field, i));
      }
    }
  }
}

}  // namespace

absl::Status FillRequest(const HttpParameters& parameters, Message* request) {
  Struct object;
  for (const auto& [name, text] : parameters) {
    const FieldDescriptor* field = FindField(*request->GetDescriptor(), name);
    if (field == nullptr) {
      return Bad("PARAMETER_UNKNOWN",
                 absl::StrCat("expected fields of ", request->GetTypeName(),
                              "; got: ", name));
    }
    Value& value = (*object.mutable_fields())[field->json_name()];
    if (field->is_repeated()) {
      value.mutable_list_value()->add_values()->set_string_value(text);
    } else if (value.kind_case() != Value::KIND_NOT_SET) {
      return Bad("PARAMETER_REPEATED",
                 absl::StrCat("expected one value; got: ", name, " twice"));
    } else {
      value.set_string_value(text);
    }
  }
  std::string json;
  if (const auto status = MessageToJsonString(object, &json); !status.ok()) {
    return Bad("PARAMETER_INVALID", std::string(status.message()));
  }
  if (const auto status = JsonStringToMessage(json, request); !status.ok()) {
    return Bad("PARAMETER_INVALID", std::string(status.message()));
  }
  return absl::OkStatus();
}

absl::Status KeepFields(const std::vector<std::string>& paths,
                        Message* message) {
  FieldTree tree;
  for (const std::string& path : paths) {
    SP_RETURN_IF_ERROR(AddPath(*message->GetDescriptor(), path, &tree));
  }
  Keep(tree, message);
  return absl::OkStatus();
}

HttpResponse JsonResponse(const Message& message) {
  HttpResponse response = Json();
  const auto status = MessageToJsonString(message, &response.body);
  if (status.ok()) return response;
  return ErrorResponse(absl::InternalError(
      absl::StrCat(message.GetTypeName(),
                   " as JSON; got: ", std::string(status.message()))));
}

HttpResponse ErrorResponse(const absl::Status& status) {
  HttpResponse response = Json();
  response.code = HttpCodes().at(status.code());
  google::rpc::Status error = ToRpcStatus(status);
  if (!MessageToJsonString(error, &response.body).ok()) {
    error.clear_details();  // of a type that this process does not know
    response.body.clear();
    static_cast<void>(MessageToJsonString(error, &response.body));
  }
  return response;
}

}  // namespace shardplane
