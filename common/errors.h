// Errors that carry their variable parts beside their sentence.
#ifndef SHARDPLANE_COMMON_ERRORS_H_
#define SHARDPLANE_COMMON_ERRORS_H_

#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// What travels with a Status as a payload and reaches a client as
// google.rpc.ErrorInfo. `reason` is UPPER_SNAKE and stable; `metadata` holds
// the variable parts under stable keys: "field" (path in the request), "fqn",
// "op", "pattern", "expected", "remedy", "retry_ms", "resource", …
struct ErrorInfo {
  std::string reason;
  absl::btree_map<std::string, std::string> metadata;

  friend bool operator==(const ErrorInfo&, const ErrorInfo&) = default;
};

// A status with `info` attached.
absl::Status MakeError(absl::StatusCode code, absl::string_view message,
                       const ErrorInfo& info);

// The info of a status made by MakeError; nullopt for any other.
std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status);

// `status` with one more metadata entry (kept if the key is there already).
// OK stays OK. A status without info gets one whose reason is its code's name.
absl::Status WithMetadata(absl::Status status, absl::string_view key,
                          absl::string_view value);

}  // namespace shardplane

#define SP_CONCAT_INNER(a, b) a##b
#define SP_CONCAT(a, b) SP_CONCAT_INNER(a, b)
#define SP_RETURN_IF_ERROR(expr)                            \
  do {                                                      \
    if (absl::Status sp_status = (expr); !sp_status.ok()) { \
      return sp_status;                                     \
    }                                                       \
  } while (false)
#define SP_ASSIGN_OR_RETURN(lhs, expr) \
  SP_ASSIGN_OR_RETURN_IMPL(SP_CONCAT(sp_or_, __LINE__), lhs, expr)
#define SP_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) {                               \
    return std::move(tmp).status();              \
  }                                              \
  lhs = *std::move(tmp)

#endif  // SHARDPLANE_COMMON_ERRORS_H_
