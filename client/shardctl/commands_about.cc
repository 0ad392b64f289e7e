// version, completion, man.
#include <ostream>

#include "client/shardctl/commands.h"
#include "client/shardctl/completion.h"
#include "client/shardctl/manual.h"
#include "client/shardctl/printing.h"

namespace shardplane {
namespace {

// As the daemons' build_info has it.
constexpr char kVersion[] = "dev";
constexpr char kApi[] = "shardplane.v1";

}  // namespace

absl::StatusOr<ExitCode> RunVersion(Invocation& invocation) {
  if (IsStructured(invocation.output())) {
    Print(invocation,
          nlohmann::ordered_json{{"version", kVersion}, {"api", kApi}});
  } else {
    invocation.out() << "shardctl " << kVersion << ", API " << kApi << "\n";
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunCompletion(Invocation& invocation) {
  const std::string& shell = invocation.arguments()[0];
  if (shell != "bash" && shell != "zsh") {
    return UsageError("completion: expected bash or zsh, got: " + shell);
  }
  invocation.out() << (shell == "bash" ? BashCompletion() : ZshCompletion());
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunManual(Invocation& invocation) {
  invocation.out() << ManualPage();
  return ExitCode::kDone;
}

}  // namespace shardplane
