// What `shardctl help` prints.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_HELP_TEXT_H_
#define SHARDPLANE_CLIENT_SHARDCTL_HELP_TEXT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"

namespace shardplane {

// Of nothing: all commands. Of the words of a command, or of its group: that.
// Of "exit-codes": these. Usage error: there is no such command.
absl::StatusOr<std::string> HelpText(const std::vector<std::string>& words);

// "-o, --output=FORMAT"
std::string FlagText(const Flag& flag);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_HELP_TEXT_H_
