// Pages of lists, as AIP-158 has them.
#ifndef SHARDPLANE_COORDINATOR_PAGE_H_
#define SHARDPLANE_COORDINATOR_PAGE_H_

#include <string>
#include <vector>

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

// The id of most resources.
inline constexpr auto IdOf = [](const auto& item) -> const std::string& {
  return item.id.value;
};

// Puts the items of one page into `add`; returns the token of the next one, ""
// after the last. `items` are in the order of `id_of`, a string each.
template <typename Item, typename GetId, typename Add>
std::string AddPage(const std::vector<Item>& items, const PageRequest& page,
                    absl::string_view collection, const GetId& id_of,
                    const Add& add) {
  int count = 0;
  std::string last;
  for (const Item& item : items) {
    const std::string& id = id_of(item);
    if (id <= page.after) {
      continue;
    }
    if (count == page.size) {
      return MakePageToken(collection, last);
    }
    add(item);
    last = id;
    ++count;
  }
  return "";
}

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_PAGE_H_
