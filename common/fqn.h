// Names of modules within modules.
#ifndef SHARDPLANE_COMMON_FQN_H_
#define SHARDPLANE_COMMON_FQN_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardplane {

// "layers.0" + "net1" -> "layers.0.net1"; "" + "net1" -> "net1".
std::string JoinFqn(absl::string_view parent, absl::string_view name);
// "layers.0.net1" -> {"layers.0", "net1"}; "net1" -> {"", "net1"}.
std::pair<std::string, std::string> SplitFqn(absl::string_view fqn);

// Whether `fqn` is `module` or lies in it; everything lies in "".
//   ("layers.0", "layers.0.wq") -> true;  ("layers.1", "layers.10") -> false
bool IsWithin(absl::string_view module, absl::string_view fqn);

// The nearest module that holds all: "layers.0.wq", "layers.0.wk" -> "layers.0"
std::string CommonModule(const std::vector<std::string>& fqns);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_FQN_H_
