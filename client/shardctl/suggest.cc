#include "client/shardctl/suggest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

// Insertions, deletions, replacements and swaps of neighbours.
size_t Edits(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> edits(a.size() + 1,
                                         std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        edits[i][j] = i + j;
        continue;
      }
      edits[i][j] = std::min({edits[i - 1][j] + 1, edits[i][j - 1] + 1,
                              edits[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        edits[i][j] = std::min(edits[i][j], edits[i - 2][j - 2] + 1);
      }
    }
  }
  return edits[a.size()][b.size()];
}

}  // namespace

std::string Suggestion(absl::string_view name,
                       const std::vector<std::string>& names) {
  std::string best;
  size_t fewest = std::string::npos;
  for (const std::string& candidate : names) {
    const size_t longer = std::max(name.size(), candidate.size());
    const size_t edits = Edits(name, candidate);
    if (edits < fewest && edits <= std::max<size_t>(2, longer / 3) &&
        edits < longer) {
      best = candidate;
      fewest = edits;
    }
  }
  return best;
}

std::string DidYouMean(absl::string_view name,
                       const std::vector<std::string>& names) {
  const std::string suggestion = Suggestion(name, names);
  return suggestion.empty()
             ? ""
             : absl::StrCat(" Did you mean \"", suggestion, "\"?");
}

}  // namespace shardplane
