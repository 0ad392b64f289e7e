#include "client/shardctl/line_diff.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace shardplane {
namespace {

constexpr size_t kContext = 3;

struct Edit {
  char kind;  // ' ', '-' or '+'
  absl::string_view line;
};

std::vector<absl::string_view> Lines(absl::string_view text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (!lines.empty() && lines.back().empty()) {
    lines.pop_back();
  }
  return lines;
}

using LineSpan = std::vector<absl::string_view>;

// How far each number of edits reaches on each diagonal (Myers, "An O(ND)
// difference algorithm"): furthest[d][k + d] is how many lines of `a` are used.
std::vector<std::vector<size_t>> Reaches(const LineSpan& a, const LineSpan& b) {
  const auto n = static_cast<std::ptrdiff_t>(a.size());
  const auto m = static_cast<std::ptrdiff_t>(b.size());
  std::vector<std::vector<size_t>> rows;
  for (std::ptrdiff_t d = 0; d <= n + m; ++d) {
    std::vector<size_t> row(2 * d + 1, 0);
    for (std::ptrdiff_t k = -d; k <= d; k += 2) {
      std::ptrdiff_t x = 0;
      if (d > 0) {
        const std::vector<size_t>& before = rows.back();
        const auto at = [&](std::ptrdiff_t diagonal) {
          return static_cast<std::ptrdiff_t>(before[diagonal + d - 1]);
        };
        const bool down = k == -d || (k != d && at(k - 1) < at(k + 1));
        x = down ? at(k + 1) : at(k - 1) + 1;
      }
      while (x < n && x - k < m && x - k >= 0 && a[x] == b[x - k]) {
        ++x;
      }
      row[k + d] = static_cast<size_t>(x);
      if (x >= n && x - k >= m) {
        rows.push_back(row);
        return rows;
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Edit> Edits(const LineSpan& a, const LineSpan& b) {
  const std::vector<std::vector<size_t>> rows = Reaches(a, b);
  std::vector<Edit> edits;
  auto x = static_cast<std::ptrdiff_t>(a.size());
  auto y = static_cast<std::ptrdiff_t>(b.size());
  for (auto d = static_cast<std::ptrdiff_t>(rows.size()) - 1; d >= 0; --d) {
    const std::ptrdiff_t k = x - y;
    std::ptrdiff_t before_x = 0;
    std::ptrdiff_t before_y = 0;
    if (d > 0) {
      const auto at = [&](std::ptrdiff_t diagonal) {
        return static_cast<std::ptrdiff_t>(rows[d - 1][diagonal + d - 1]);
      };
      const bool down = k == -d || (k != d && at(k - 1) < at(k + 1));
      const std::ptrdiff_t before_k = down ? k + 1 : k - 1;
      before_x = at(before_k);
      before_y = before_x - before_k;
    }
    const std::ptrdiff_t start_x =
        d == 0 ? 0 : std::max(before_x, before_y + k);
    while (x > start_x && y > 0 && x > 0 && a[x - 1] == b[y - 1] &&
           (d == 0 || (x > before_x && y > before_y))) {
      edits.push_back({' ', a[--x]});
      --y;
    }
    if (d > 0) {
      if (x > before_x) {
        edits.push_back({'-', a[--x]});
      } else {
        edits.push_back({'+', b[--y]});
      }
    }
  }
  std::reverse(edits.begin(), edits.end());
  return edits;
}

// The lines [begin, end) of the edits, under a head that says where they are.
std::string Hunk(const std::vector<Edit>& edits, size_t begin, size_t end) {
  size_t from_line = 1;
  size_t to_line = 1;
  for (size_t i = 0; i < begin; ++i) {
    from_line += edits[i].kind != '+';
    to_line += edits[i].kind != '-';
  }
  size_t from_count = 0;
  size_t to_count = 0;
  std::string body;
  for (size_t i = begin; i < end; ++i) {
    from_count += edits[i].kind != '+';
    to_count += edits[i].kind != '-';
    absl::StrAppend(&body, std::string(1, edits[i].kind), edits[i].line, "\n");
  }
  return absl::StrFormat(
      "@@ -%d,%d +%d,%d @@\n%s", from_count == 0 ? from_line - 1 : from_line,
      from_count, to_count == 0 ? to_line - 1 : to_line, to_count, body);
}

}  // namespace

std::string LineDiff(absl::string_view from, absl::string_view to,
                     absl::string_view from_name, absl::string_view to_name) {
  if (from == to) {
    return "";
  }
  const std::vector<Edit> edits = Edits(Lines(from), Lines(to));
  std::string text = absl::StrCat("--- ", from_name, "\n+++ ", to_name, "\n");
  size_t i = 0;
  while (i < edits.size()) {
    if (edits[i].kind == ' ') {
      ++i;
      continue;
    }
    const size_t begin = i - std::min(i, kContext);
    size_t last = i;  // the last change of the hunk
    for (size_t j = i; j < edits.size() && j <= last + 2 * kContext + 1; ++j) {
      if (edits[j].kind != ' ') last = j;
    }
    const size_t end = std::min(edits.size(), last + 1 + kContext);
    absl::StrAppend(&text, Hunk(edits, begin, end));
    i = end;
  }
  return text;
}

}  // namespace shardplane
