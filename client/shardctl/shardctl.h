// The program, but for what is the process's alone.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_H_
#define SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_H_

#include <string>
#include <vector>

#include "client/shardctl/command.h"

namespace shardplane {

// Runs what was typed, without the program's name. Errors go to
// environment.err.
ExitCode RunShardctl(const std::vector<std::string>& words,
                     const Environment& environment);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_H_
