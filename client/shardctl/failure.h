// What has gone wrong, for who typed the command and for scripts.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_FAILURE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_FAILURE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

enum class ExitCode {
  kDone = 0,         // and nothing was found
  kFailed = 1,       // refused or failed; a difference; something was found
  kUsage = 2,        // of flags, names and files
  kUnreachable = 3,  // no coordinator has answered
  kTimedOut = 4,
};

// A row of the table that documents them.
struct ExitCodeText {
  ExitCode code;
  const char* meaning;
};
const std::vector<ExitCodeText>& ExitCodeTexts();

// InvalidArgument that the command line is to blame for; `hint` says what to
// do.
absl::Status UsageError(absl::string_view message, absl::string_view hint = "");

// `status` with a hint, unless it has one.
absl::Status WithHint(const absl::Status& status, absl::string_view hint);

ExitCode ExitCodeOf(const absl::Status& status);

// Lines for stderr: the sentence, what its details say, what to do.
//
//   error: mesh: expected 4 free workers, got: 2
//     reason: TOO_FEW_WORKERS (FAILED_PRECONDITION)
//     fqn: up
//   hint: start more workers
std::string FailureText(const absl::Status& status);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_FAILURE_H_
