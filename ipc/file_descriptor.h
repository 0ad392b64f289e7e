// An open file of the system, closed by its owner.
#ifndef SHARDPLANE_IPC_FILE_DESCRIPTOR_H_
#define SHARDPLANE_IPC_FILE_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace shardplane {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }

  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }  // -1: none

 private:
  int fd_ = -1;
};

}  // namespace shardplane

#endif  // SHARDPLANE_IPC_FILE_DESCRIPTOR_H_
