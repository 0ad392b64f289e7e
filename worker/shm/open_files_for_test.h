// What this process has open, and whether others could find it.
#ifndef SHARDPLANE_WORKER_SHM_OPEN_FILES_FOR_TEST_H_
#define SHARDPLANE_WORKER_SHM_OPEN_FILES_FOR_TEST_H_

#include <fcntl.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

namespace shardplane {

inline std::set<std::string> NamesIn(const std::string& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

// Also the folder's own while it is read: always one more, so they compare.
inline size_t OpenFiles() { return NamesIn("/proc/self/fd").size(); }

// Open files that a program which this process starts would inherit.
inline size_t InheritedFiles() {
  size_t count = 0;
  for (const std::string& name : NamesIn("/proc/self/fd")) {
    const int flags = fcntl(std::stoi(name), F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) ++count;
  }
  return count;
}

// Whether it has shared memory that has a name, and so may be left behind.
inline bool HasNamedSharedMemory() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(" /dev/shm/") != std::string::npos) return true;
  }
  return false;
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_OPEN_FILES_FOR_TEST_H_
