#include "worker/profile_route.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace shardplane {
namespace {

struct Asked {
  int steps = 3;
  int seconds = 60;
};

absl::StatusOr<Asked> Parse(absl::string_view query) {
  Asked asked;
  for (const absl::string_view pair :
       absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(pair, absl::MaxSplits('=', 1));
    int* const number = parts.first == "steps"     ? &asked.steps
                        : parts.first == "seconds" ? &asked.seconds
                                                   : nullptr;
    if (number == nullptr || !absl::SimpleAtoi(parts.second, number) ||
        *number < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected steps=N and seconds=N, each at least 1, got: ", pair));
    }
  }
  return asked;
}

int CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

HttpResponse Refusal(const absl::Status& status) {
  return {.code = CodeOf(status), .body = absl::StrCat(status.message(), "\n")};
}

}  // namespace

HttpRoute ProfileRoute(StepProfiler* profiler) {
  return {.prefix = "/profile",
          .handle = [profiler](const HttpRequest& request) -> HttpResponse {
            const absl::StatusOr<Asked> asked = Parse(request.query);
            if (!asked.ok()) return Refusal(asked.status());
            absl::StatusOr<std::string> trace =
                profiler->Profile(asked->steps, absl::Seconds(asked->seconds));
            if (!trace.ok()) return Refusal(trace.status());
            return {.body = *std::move(trace),
                    .content_type = "application/json"};
          },
          .max_calls = 1};
}

}  // namespace shardplane
