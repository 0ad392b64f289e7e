// Files in the safetensors format: the size of a header (u64, little-endian),
// the header, which is JSON, then the tensors' bytes, row-major and
// little-endian. https://github.com/huggingface/safetensors describes it.
#ifndef SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_H_
#define SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/tensor_type.h"

namespace shardplane {

struct StoredTensor {
  TensorType type;
  int64_t offset = 0;  // of its first byte in the file
};

// Of tensors by name; some may be of types that Shardplane lacks.
struct SafetensorsHeader {
  absl::btree_map<std::string, StoredTensor> tensors;
  absl::btree_map<std::string, std::string> foreign;  // name -> type
};

// `begin`: where the tensors' bytes begin in the file, which has `size` bytes.
// InvalidArgument: not a header of the format, or tensors beyond the file's
// end.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t begin,
                                                         int64_t size);

// One file, open. Thread-safe.
class SafetensorsFile {
 public:
  // Reads the header. NotFound, PermissionDenied, Unavailable: as the system
  // says. DataLoss, reason WEIGHTS_MALFORMED: not such a file, or not all of
  // it. Each names the file.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(
      const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  int64_t size() const { return size_; }

  // Fills `to` with the bytes from `offset` on. DataLoss: the file has become
  // shorter. Unavailable: what else the system says.
  absl::Status Read(int64_t offset, absl::Span<char> to) const;

 private:
  SafetensorsFile(std::string path, int descriptor, int64_t size)
      : path_(std::move(path)), descriptor_(descriptor), size_(size) {}
  absl::Status ReadHeader();

  const std::string path_;
  const int descriptor_;
  const int64_t size_;
  SafetensorsHeader header_;
};

// Reads runs of bytes of a file, short ones by way of a window of a megabyte:
// columns of a matrix cost no call each. One thread.
class RunReader {
 public:
  // Keeps `file` open.
  explicit RunReader(std::shared_ptr<const SafetensorsFile> file)
      : file_(std::move(file)) {}

  // As SafetensorsFile::Read.
  absl::Status Read(int64_t offset, absl::Span<char> to);

 private:
  const std::shared_ptr<const SafetensorsFile> file_;
  std::vector<char> window_;
  int64_t window_offset_ = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_H_
