#include "common/errors.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace shardplane {
namespace {

// Of this process alone: on the wire it becomes a google.rpc.ErrorInfo, which
// proto/grpc_status.h makes.
constexpr char kPayloadUrl[] = "shardplane/error_info";

// Length-prefixed strings: the reason, then keys and values in turn.
void AppendField(absl::string_view field, std::string* out) {
  absl::StrAppend(out, field.size(), ":", field);
}

std::optional<std::string> TakeField(absl::string_view* in) {
  const size_t colon = in->find(':');
  if (colon == absl::string_view::npos) return std::nullopt;
  size_t size = 0;
  for (const char digit : in->substr(0, colon)) {
    size = size * 10 + static_cast<size_t>(digit - '0');
  }
  in->remove_prefix(colon + 1);
  if (size > in->size()) return std::nullopt;
  std::string field(in->substr(0, size));
  in->remove_prefix(size);
  return field;
}

std::string Encode(const ErrorInfo& info) {
  std::string encoded;
  AppendField(info.reason, &encoded);
  for (const auto& [key, value] : info.metadata) {
    AppendField(key, &encoded);
    AppendField(value, &encoded);
  }
  return encoded;
}

std::string CodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view message,
                       const ErrorInfo& info) {
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(Encode(info)));
  return status;
}

std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string encoded(*payload);
  absl::string_view rest = encoded;
  std::optional<std::string> reason = TakeField(&rest);
  if (!reason.has_value()) return std::nullopt;
  ErrorInfo info{.reason = *std::move(reason)};
  while (!rest.empty()) {
    std::optional<std::string> key = TakeField(&rest);
    std::optional<std::string> value = TakeField(&rest);
    if (!key.has_value() || !value.has_value()) return std::nullopt;
    info.metadata.emplace(*std::move(key), *std::move(value));
  }
  return info;
}

absl::Status WithMetadata(absl::Status status, absl::string_view key,
                          absl::string_view value) {
  if (status.ok()) return status;
  ErrorInfo info = GetErrorInfo(status).value_or(
      ErrorInfo{.reason = CodeName(status.code())});
  info.metadata.emplace(std::string(key), std::string(value));
  status.SetPayload(kPayloadUrl, absl::Cord(Encode(info)));
  return status;
}

}  // namespace shardplane
