#include "client/shardctl/shardctl.h"

#include <ostream>
#include <utility>

#include "client/shardctl/command_line.h"

namespace shardplane {
namespace {

ExitCode Fail(const absl::Status& status, const Environment& environment) {
  environment.out->flush();
  *environment.err << FailureText(status) << std::flush;
  return ExitCodeOf(status);
}

}  // namespace

ExitCode RunShardctl(const std::vector<std::string>& words,
                     const Environment& environment) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(words);
  if (!line.ok()) return Fail(line.status(), environment);
  if (line->command == nullptr) {
    *environment.out << line->help << std::flush;
    return ExitCode::kDone;
  }
  Invocation invocation(*line->command, environment, std::move(line->arguments),
                        std::move(line->flags));
  const absl::StatusOr<ExitCode> code = line->command->run(invocation);
  if (!code.ok()) return Fail(code.status(), environment);
  environment.out->flush();
  return *code;
}

}  // namespace shardplane
