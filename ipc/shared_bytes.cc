#include "ipc/shared_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
constexpr size_t kMaxAtOnce = 64;  // parts

absl::Status Failed(absl::string_view doing, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("shared bytes: expected to ", doing, "; got: ", why),
      {.reason = "SHARED_BYTES_FAILED", .metadata = {}});
}

absl::Status SystemFailed(absl::string_view doing) {
  return Failed(doing, std::strerror(errno));
}

// Drops the first `count` bytes.
void Advance(std::vector<iovec>& parts, size_t count) {
  size_t whole = 0;
  while (whole < parts.size() && count >= parts[whole].iov_len) {
    count -= parts[whole++].iov_len;
  }
  parts.erase(parts.begin(), parts.begin() + whole);
  if (count == 0) return;
  parts[0].iov_base = static_cast<char*>(parts[0].iov_base) + count;
  parts[0].iov_len -= count;
}

}  // namespace

absl::StatusOr<SharedBytes> SharedBytes::Create(
    absl::Span<const absl::string_view> parts) {
  FileDescriptor file(
      memfd_create("shardplane-step", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return SystemFailed("make a file in memory");
  std::vector<iovec> rest;
  for (const absl::string_view part : parts) {
    if (part.empty()) continue;
    rest.push_back({const_cast<char*>(part.data()), part.size()});
  }
  while (!rest.empty()) {
    const ssize_t count =
        writev(file.get(), rest.data(),
               static_cast<int>(std::min(rest.size(), kMaxAtOnce)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemFailed("write to memory");
    Advance(rest, static_cast<size_t>(count));
  }
  if (fcntl(file.get(), F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    return SystemFailed("seal a file in memory");
  }
  return SharedBytes(std::move(file));
}

absl::StatusOr<MappedBytes> MappedBytes::Map(const FileDescriptor& file) {
  // One that became shorter would end us with SIGBUS.
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) {
    return Failed("map a sealed file", absl::StrCat("one with seals ", seals));
  }
  struct stat info;
  if (fstat(file.get(), &info) != 0) return SystemFailed("look at a file");
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedBytes(nullptr, 0);
  void* const data =
      mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file.get(), 0);
  if (data == MAP_FAILED) return SystemFailed("map a file");
  return MappedBytes(static_cast<const char*>(data), size);
}

MappedBytes::MappedBytes(MappedBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedBytes::~MappedBytes() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

}  // namespace shardplane
