// What differs between two texts, line by line.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_LINE_DIFF_H_
#define SHARDPLANE_CLIENT_SHARDCTL_LINE_DIFF_H_

#include <string>

#include "absl/strings/string_view.h"

namespace shardplane {

// As `diff -U3` shows it, under the two names; "" where they are the same.
//
//   --- running
//   +++ file
//   @@ -1,2 +1,2 @@
//    mesh:
//   -  size: 2
//   +  size: 4
std::string LineDiff(absl::string_view from, absl::string_view to,
                     absl::string_view from_name, absl::string_view to_name);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_LINE_DIFF_H_
