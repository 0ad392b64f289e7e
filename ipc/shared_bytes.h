// Bytes that processes of one machine read where they lie.
#ifndef SHARDPLANE_IPC_SHARED_BYTES_H_
#define SHARDPLANE_IPC_SHARED_BYTES_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/file_descriptor.h"

namespace shardplane {

// An open file in memory that nobody changes any more, and nobody finds by a
// name. Thread-safe.
class SharedBytes {
 public:
  // The parts, one after the other: the only copy. Unavailable,
  // SHARED_BYTES_FAILED: the system has no room for them.
  static absl::StatusOr<SharedBytes> Create(
      absl::Span<const absl::string_view> parts);

  int file() const { return file_.get(); }

 private:
  explicit SharedBytes(FileDescriptor file) : file_(std::move(file)) {}

  FileDescriptor file_;
};

// Them as another process sees them, until the end of this object.
class MappedBytes {
 public:
  // Unavailable, SHARED_BYTES_FAILED: it could still change or become shorter,
  // or the system refuses.
  static absl::StatusOr<MappedBytes> Map(const FileDescriptor& file);
  MappedBytes(MappedBytes&& other) noexcept;
  MappedBytes& operator=(MappedBytes&& other) = delete;
  ~MappedBytes();

  absl::string_view bytes() const { return {data_, size_}; }

 private:
  MappedBytes(const char* data, size_t size) : data_(data), size_(size) {}

  const char* data_;
  size_t size_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_IPC_SHARED_BYTES_H_
