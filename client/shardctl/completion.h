// Shell scripts that complete what is typed, made from the table of commands.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_COMPLETION_H_
#define SHARDPLANE_CLIENT_SHARDCTL_COMPLETION_H_

#include <string>

namespace shardplane {

// Both complete commands, flags, the values of flags with choices, kinds,
// names of resources (`shardctl get KIND -o name`, which may take a second) and
// contexts.
std::string BashCompletion();
std::string ZshCompletion();

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_COMPLETION_H_
