// What was typed, by the table of commands.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_COMMAND_LINE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_COMMAND_LINE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"

namespace shardplane {

struct CommandLine {
  const Command* command = nullptr;  // null: `help` is all that there is
  std::vector<std::string> arguments;
  std::map<std::string, std::vector<std::string>> flags;  // that were given
  std::string help;  // to print instead of running
};

// `typed`: without the program's name. Usage error: no such command or flag,
// with what may have been meant; too few or too many arguments; a value that is
// none of its choices.
absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& typed);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_COMMAND_LINE_H_
