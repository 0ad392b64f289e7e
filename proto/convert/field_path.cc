#include "proto/convert/field_path.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status FieldError(absl::string_view reason, const FieldPath& field,
                        absl::string_view message) {
  const std::string path = field.ToString();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(path, path.empty() ? "" : ": ", message),
      {.reason = std::string(reason), .metadata = {{"field", path}}});
}

}  // namespace

std::string FieldPath::ToString() const {
  std::string path = parent_ == nullptr ? "" : parent_->ToString();
  absl::StrAppend(&path, path.empty() || name_.empty() ? "" : ".", name_);
  switch (kind_) {
    case kMember:
      break;
    case kElement:
      absl::StrAppend(&path, "[", index_, "]");
      break;
    case kEntry:
      absl::StrAppend(&path, "[\"", key_, "\"]");
      break;
  }
  return path;
}

absl::Status InvalidField(const FieldPath& field, absl::string_view message) {
  return FieldError("FIELD_INVALID", field, message);
}

absl::Status MissingField(const FieldPath& field) {
  return FieldError("FIELD_MISSING", field, "is required, got: nothing");
}

absl::Status MissingOneof(const FieldPath& field, absl::string_view members) {
  return FieldError(
      "FIELD_MISSING", field,
      absl::StrCat("expected one of ", members, ", got: nothing"));
}

absl::Status InvalidEnum(const FieldPath& field, absl::string_view expected,
                         int got) {
  return FieldError(
      "ENUM_INVALID", field,
      got == 0 ? absl::StrCat("expected ", expected, ", got: unspecified")
               : absl::StrCat("expected ", expected, ", got: ", got));
}

absl::Status InField(const absl::Status& status, const FieldPath& field) {
  if (status.ok()) {
    return status;
  }
  ErrorInfo info = GetErrorInfo(status).value_or(ErrorInfo{
      .reason = absl::StatusCodeToString(status.code()), .metadata = {}});
  info.metadata["field"] = field.ToString();
  return MakeError(status.code(), status.message(), info);
}

absl::Status CheckCount(const FieldPath& field, int64_t count, int64_t limit) {
  if (count <= limit) {
    return absl::OkStatus();
  }
  return InvalidField(
      field, absl::StrCat("expected at most ", limit, ", got: ", count));
}

}  // namespace shardplane
