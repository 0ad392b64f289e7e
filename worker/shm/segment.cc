#include "worker/shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kMaxSlotBytes = int64_t{64} << 20;

int64_t ControlBytes(const ShmSizes& sizes) {
  const int64_t bytes = sizes.ranks * static_cast<int64_t>(sizeof(ShmControl));
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

int64_t TotalBytes(const ShmSizes& sizes) {
  return ControlBytes(sizes) + sizes.ranks * kShmSlots * sizes.slot_bytes;
}

absl::Status Check(const ShmSizes& sizes) {
  if (sizes.ranks >= 1 && sizes.ranks <= kMaxShmRanks &&
      sizes.slot_bytes >= kShmAlignment && sizes.slot_bytes <= kMaxSlotBytes &&
      sizes.slot_bytes % kShmAlignment == 0) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("shared memory: expected 1 to ", kMaxShmRanks,
                   " ranks and slots of a multiple of ", kShmAlignment,
                   " bytes up to ", kMaxSlotBytes, "; got: ", sizes.ranks,
                   " ranks, ", sizes.slot_bytes, " bytes"),
      {.reason = "SHARED_MEMORY_SIZES", .metadata = {}});
}

absl::Status SystemError(absl::string_view doing) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("shared memory: expected to ", doing,
                                "; got: ", std::strerror(errno)),
                   {.reason = "NO_SHARED_MEMORY", .metadata = {}});
}

absl::StatusOr<std::byte*> MapWhole(int file, const ShmSizes& sizes) {
  void* memory = mmap(nullptr, TotalBytes(sizes), PROT_READ | PROT_WRITE,
                      MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return SystemError("map a segment");
  return static_cast<std::byte*>(memory);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Create(
    const ShmSizes& sizes) {
  SP_RETURN_IF_ERROR(Check(sizes));
  FileDescriptor file(
      memfd_create("shardplane", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return SystemError("create a segment");
  if (ftruncate(file.get(), TotalBytes(sizes)) != 0) {
    return SystemError(
        absl::StrCat("give a segment ", TotalBytes(sizes), " bytes"));
  }
  // A peer that could cut it would end us with SIGBUS.
  if (fcntl(file.get(), F_ADD_SEALS,
            F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return SystemError("seal a segment");
  }
  SP_ASSIGN_OR_RETURN(std::byte * memory, MapWhole(file.get(), sizes));
  return std::unique_ptr<ShmSegment>(
      new ShmSegment(std::move(file), sizes, memory));
}

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Map(
    FileDescriptor file, const ShmSizes& sizes) {
  SP_RETURN_IF_ERROR(Check(sizes));
  struct stat info;
  if (fstat(file.get(), &info) != 0) return SystemError("look at a segment");
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (info.st_size != TotalBytes(sizes) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("shared memory: expected a sealed segment of ",
                     TotalBytes(sizes), " bytes, got: ", info.st_size,
                     " bytes, seals ", seals),
        {.reason = "SHARED_MEMORY_SIZES", .metadata = {}});
  }
  SP_ASSIGN_OR_RETURN(std::byte * memory, MapWhole(file.get(), sizes));
  return std::unique_ptr<ShmSegment>(
      new ShmSegment(std::move(file), sizes, memory));
}

ShmSegment::~ShmSegment() { munmap(memory_, TotalBytes(sizes_)); }

ShmControl& ShmSegment::control(int rank) const {
  // Zero bytes are atomics that hold zero.
  return reinterpret_cast<ShmControl*>(memory_)[rank];
}

std::byte* ShmSegment::slot(int rank, uint64_t chunk) const {
  const int64_t index =
      rank * kShmSlots + static_cast<int64_t>(chunk % kShmSlots);
  return memory_ + ControlBytes(sizes_) + index * sizes_.slot_bytes;
}

}  // namespace shardplane
