// Shell globbing of one name.
#ifndef SHARDPLANE_COMMON_GLOB_H_
#define SHARDPLANE_COMMON_GLOB_H_

#include "absl/strings/string_view.h"

namespace shardplane {

// Whether all of `name` matches `pattern`, as Python's fnmatch.fnmatchcase has
// it: `*`, `?`, `[abc]`, `[1-3]`, `[!x]`; an unclosed `[` stands for itself.
// Both are UTF-8 and `?` is one character of it.
//   ("net?", "net1") -> true; ("net[!1]", "net1") -> false;
//   ("net[1", "net[1") -> true; ("*", "") -> true
bool GlobMatch(absl::string_view pattern, absl::string_view name);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_GLOB_H_
