#include "client/shardctl/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shardplane {
namespace {

constexpr size_t kCells = 20;

}  // namespace

std::string BarText(absl::string_view what, double fraction,
                    absl::string_view detail, size_t width) {
  const double part = std::clamp(fraction, 0.0, 1.0);
  const auto full = static_cast<size_t>(std::floor(part * kCells));
  std::string text =
      absl::StrFormat("%s [%s%s] %3.0f%%", what, std::string(full, '#'),
                      std::string(kCells - full, '.'), std::floor(part * 100));
  if (!detail.empty()) absl::StrAppend(&text, "  ", detail);
  return width == 0 ? text : text.substr(0, width);
}

ProgressLine::ProgressLine(std::ostream* out, bool is_terminal)
    : out_(out), is_terminal_(is_terminal) {}

ProgressLine::~ProgressLine() {
  if (shown_) *out_ << "\n" << std::flush;
}

void ProgressLine::Show(const std::string& text) {
  if (!is_terminal_) return;
  // To the line's beginning, and what is left of the one before is erased.
  *out_ << "\r" << text << "\033[K" << std::flush;
  shown_ = true;
}

}  // namespace shardplane
