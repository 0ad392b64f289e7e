// What may have been meant by a name that does not exist.
#ifndef SHARDPLANE_COMMON_CLOSEST_NAME_H_
#define SHARDPLANE_COMMON_CLOSEST_NAME_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shardplane {

// The one of `names` that is closest to `name`, the first of several, if it is
// close: edits of at most a third of its bytes (one at least); else "".
//   ("nte1", {"net1", "relu"}) -> "net1";  ("x", {"y"}) -> ""
std::string ClosestName(absl::string_view name,
                        absl::Span<const std::string> names);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_CLOSEST_NAME_H_
