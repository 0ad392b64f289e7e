#include "client/shardctl/failure.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/error_info.h"

namespace shardplane {
namespace {

constexpr char kUsageReason[] = "USAGE";
constexpr char kRemedy[] = "remedy";

// What to do about errors whose senders do not say.
struct ReasonHint {
  const char* reason;
  const char* hint;
};
constexpr ReasonHint kHints[] = {
    {"NOT_CONNECTED",
     "is it running? --address, SHARDPLANE_ADDRESS or `shardctl config "
     "set-context` say where"},
    {"UNAVAILABLE", "`shardctl diagnose` tells what does not answer"},
    {"DEADLINE_EXCEEDED", "--timeout gives it longer"},
    {"WAIT_TIMED_OUT", "--timeout gives it longer"},
    {"UNIMPLEMENTED",
     "the coordinator may be older than this shardctl, and lack the method"},
    {"STEP_OUT_OF_TURN", "`shardctl get deployments` shows the last step"},
    {"DEPLOYMENT_EXISTS", "`shardctl apply` compares with what there is"},
    {"PLAN_INVALID", "`shardctl plan -f FILE` shows all that the plan does"},
};

std::string HintOf(const google::rpc::ErrorInfo& info) {
  if (const auto it = info.metadata().find(kRemedy);
      it != info.metadata().end()) {
    return it->second;
  }
  for (const ReasonHint& row : kHints) {
    if (info.reason() == row.reason) {
      return row.hint;
    }
  }
  return "";
}

std::string ReasonOf(const absl::Status& status,
                     const google::rpc::ErrorInfo& info) {
  return info.reason().empty() ? absl::StatusCodeToString(status.code())
                               : info.reason();
}

}  // namespace

const std::vector<ExitCodeText>& ExitCodeTexts() {
  static const auto* const kTexts = new std::vector<ExitCodeText>{
      {ExitCode::kDone,
       "done; `apply --dry-run` found no difference, "
       "`diagnose` nothing wrong"},
      {ExitCode::kFailed,
       "the coordinator refused it, or it failed; `apply --dry-run` found a "
       "difference, `diagnose` something wrong"},
      {ExitCode::kUsage, "wrong usage: a flag, a name, a file"},
      {ExitCode::kUnreachable, "no coordinator has answered"},
      {ExitCode::kTimedOut, "it has not come to its end in time"},
  };
  return *kTexts;
}

absl::Status UsageError(absl::string_view message, absl::string_view hint) {
  google::rpc::ErrorInfo info;
  info.set_reason(kUsageReason);
  if (!hint.empty()) {
    (*info.mutable_metadata())[kRemedy] = std::string(hint);
  }
  return ClientError(absl::StatusCode::kInvalidArgument, std::move(info),
                     message);
}

absl::Status WithHint(const absl::Status& status, absl::string_view hint) {
  google::rpc::ErrorInfo info = ErrorInfoOf(status);
  if (status.ok() || hint.empty() || !HintOf(info).empty()) {
    return status;
  }
  info.set_reason(ReasonOf(status, info));
  (*info.mutable_metadata())[kRemedy] = std::string(hint);
  return ClientError(status.code(), std::move(info), status.message());
}

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kDone;
    case absl::StatusCode::kUnavailable:
      return ExitCode::kUnreachable;
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kTimedOut;
    default:
      return ErrorInfoOf(status).reason() == kUsageReason ? ExitCode::kUsage
                                                          : ExitCode::kFailed;
  }
}

std::string FailureText(const absl::Status& status) {
  const google::rpc::ErrorInfo info = ErrorInfoOf(status);
  const std::string reason = ReasonOf(status, info);
  std::string text =
      absl::StrCat("error: ",
                   status.message().empty() ? "the coordinator does not say why"
                                            : status.message(),
                   "\n");
  if (reason != kUsageReason) {
    const std::string code = absl::StatusCodeToString(status.code());
    absl::StrAppend(&text, "  reason: ", reason,
                    reason == code ? "" : absl::StrCat(" (", code, ")"), "\n");
  }
  for (const char* key : {"field", "fqn", "pattern", "op", "step"}) {
    if (const auto it = info.metadata().find(key);
        it != info.metadata().end()) {
      absl::StrAppend(&text, "  ", key, ": ", it->second, "\n");
    }
  }
  const std::string hint = HintOf(info);
  return hint.empty() ? text : absl::StrCat(text, "hint: ", hint, "\n");
}

}  // namespace shardplane
