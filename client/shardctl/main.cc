// shardctl: the process.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/shardctl/shardctl.h"

namespace {

size_t TerminalWidth() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

int main(int argc, char** argv) {
  // `shardctl ... | head` ends as other programs do.
  std::signal(SIGPIPE, SIG_DFL);
  const shardplane::Environment environment{
      .out = &std::cout,
      .err = &std::cerr,
      .in = &std::cin,
      .out_is_terminal = isatty(STDOUT_FILENO) != 0,
      .err_is_terminal = isatty(STDERR_FILENO) != 0,
      .width = TerminalWidth(),
      .getenv = &Variable,
      .now = &absl::Now,
      .sleep = &absl::SleepFor,
  };
  const std::vector<std::string> words(argv + 1, argv + argc);
  return static_cast<int>(shardplane::RunShardctl(words, environment));
}
