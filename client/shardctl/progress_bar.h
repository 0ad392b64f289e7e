// How far something has come, on one line of a terminal.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_PROGRESS_BAR_H_
#define SHARDPLANE_CLIENT_SHARDCTL_PROGRESS_BAR_H_

#include <cstddef>
#include <iosfwd>
#include <string>

#include "absl/strings/string_view.h"

namespace shardplane {

// "placing parameters [#########...........]  45%  12.0 MiB of 26.7 MiB"; cut
// at `width` unless it is 0. `fraction` is in [0, 1].
std::string BarText(absl::string_view what, double fraction,
                    absl::string_view detail, size_t width);

// A line that is written over until it is done; nothing where there is no
// terminal.
class ProgressLine {
 public:
  ProgressLine(std::ostream* out, bool is_terminal);
  ~ProgressLine();  // ends the line
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(const std::string& text);

 private:
  std::ostream* const out_;
  const bool is_terminal_;
  bool shown_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_PROGRESS_BAR_H_
