#include "worker/shm/copy_bytes.h"

#include <cstring>

namespace shardplane {
namespace {

// Between these a loop of vectors is the faster one: libc's uses the string
// instruction there, which waits longer for lines of another core.
constexpr int64_t kLoopFrom = 2048;

struct Line {
  long words[8];
};

}  // namespace

void CopyBytes(std::byte* to, const std::byte* from, int64_t bytes) {
  int64_t done = 0;
  if (bytes >= kLoopFrom) {
    for (; done + static_cast<int64_t>(sizeof(Line)) <= bytes;
         done += sizeof(Line)) {
      Line line;
      std::memcpy(&line, from + done, sizeof(Line));
      std::memcpy(to + done, &line, sizeof(Line));
    }
  }
  if (done < bytes) std::memcpy(to + done, from + done, bytes - done);
}

}  // namespace shardplane
