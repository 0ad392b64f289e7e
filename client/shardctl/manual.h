// The manual page, made from the table of commands.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_MANUAL_H_
#define SHARDPLANE_CLIENT_SHARDCTL_MANUAL_H_

#include <string>

namespace shardplane {

// As `man` reads it: shardctl.1.
std::string ManualPage();

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_MANUAL_H_
