#include "client/backoff.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "client/error_info.h"

namespace shardplane {
namespace {

// What the server asks for (its RetryInfo), else zero.
absl::Duration AskedFor(const absl::Status& status) {
  const google::rpc::ErrorInfo info = ErrorInfoOf(status);
  const auto asked = info.metadata().find("retry_ms");
  int64_t ms = 0;
  const bool valid = asked != info.metadata().end() &&
                     absl::SimpleAtoi(asked->second, &ms) && ms > 0;
  return valid ? absl::Milliseconds(ms) : absl::ZeroDuration();
}

}  // namespace

std::optional<absl::Duration> Backoff::Next(const absl::Status& status,
                                            absl::Time now, double random) {
  if (!absl::IsUnavailable(status)) {
    return std::nullopt;
  }
  const absl::Duration wait = std::max(random * next_, AskedFor(status));
  if (now + wait > end_) {
    return std::nullopt;
  }
  next_ = std::min(2 * next_, longest_);
  return wait;
}

}  // namespace shardplane
