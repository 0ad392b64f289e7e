#include "common/closest_name.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shardplane {
namespace {

// Levenshtein's: insertions, deletions and replacements of one byte.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string ClosestName(absl::string_view name,
                        absl::Span<const std::string> names) {
  std::string closest;
  size_t best = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    if (candidate.size() > name.size() + best) continue;
    const size_t distance = EditDistance(name, candidate);
    // A name of nothing but edits is no guess at what was meant.
    if (distance >= best || distance >= candidate.size()) continue;
    best = distance;
    closest = candidate;
  }
  return closest;
}

}  // namespace shardplane
