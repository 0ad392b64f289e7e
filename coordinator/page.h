// Pages of lists, as AIP-158 has them.
#ifndef SHARDPLANE_COORDINATOR_PAGE_H_
#define SHARDPLANE_COORDINATOR_PAGE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

struct PageRequest {
  int size = 0;
  std::string after;  // the last id of the page before; "" for the first
};

// 0 is 50, more than 1000 is 1000. InvalidArgument: a negative size, a token
// that was not made by MakePageToken for this collection.
absl::StatusOr<PageRequest> ParsePage(int size, absl::string_view token,
                                      absl::string_view collection);

// Opaque; bound to its collection.
std::string MakePageToken(absl::string_view collection, absl::string_view last);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_PAGE_H_
