// How tests use worker/nvtx_recorder.
#ifndef SHARDPLANE_WORKER_NVTX_RECORDER_FOR_TEST_H_
#define SHARDPLANE_WORKER_NVTX_RECORDER_FOR_TEST_H_

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace shardplane {

// From a test's runfiles, in which it starts.
inline constexpr char kNvtxRecorder[] = "worker/libnvtx_recorder.so";

// Made before the process first calls NVTX, which looks for a profiler then.
class NvtxRecorder {
 public:
  NvtxRecorder() : library_(dlopen(kNvtxRecorder, RTLD_NOW | RTLD_LOCAL)) {
    setenv("NVTX_INJECTION64_PATH", kNvtxRecorder, /*replace=*/1);
    Take();  // another test's
  }
  ~NvtxRecorder() {
    if (library_ != nullptr) dlclose(library_);
  }
  NvtxRecorder(const NvtxRecorder&) = delete;
  NvtxRecorder& operator=(const NvtxRecorder&) = delete;

  // The lines since the last call.
  std::vector<std::string> Take() {
    if (library_ == nullptr) return {"no recorder"};
    const auto take =
        reinterpret_cast<const char* (*)()>(dlsym(library_, "TakeNvtxLines"));
    return absl::StrSplit(take(), '\n', absl::SkipEmpty());
  }

  // The ranges among them, each as often as it was entered, indented by those
  // that it lies in: "forward", "  net1". A range that does not end, or an end
  // of none, is a line of its own.
  std::vector<std::string> TakeRanges() {
    std::vector<std::string> ranges;
    size_t depth = 0;
    for (const std::string& line : Take()) {
      if (line == "shardplane}") {
        if (depth == 0) ranges.push_back("an end too many");
        depth -= depth > 0;
      } else if (const size_t at = line.find('{'); at != std::string::npos) {
        ranges.push_back(std::string(2 * depth++, ' ') + line.substr(at + 1));
      }
    }
    if (depth > 0) ranges.push_back("no end");
    return ranges;
  }

 private:
  void* const library_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_NVTX_RECORDER_FOR_TEST_H_
