// What may have been meant by a name that does not exist.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_SUGGEST_H_
#define SHARDPLANE_CLIENT_SHARDCTL_SUGGEST_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardplane {

// The closest of `names`, the first of several, where it is close: a third of
// the longer one's letters, two at least, are other ones; else "". A swap of
// neighbours counts as one.
//   ("gte", {"get", "top"}) -> "get";  ("xyz", {"get"}) -> ""
std::string Suggestion(absl::string_view name,
                       const std::vector<std::string>& names);

// " Did you mean "get"?", or "" where nothing is close.
std::string DidYouMean(absl::string_view name,
                       const std::vector<std::string>& names);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_SUGGEST_H_
