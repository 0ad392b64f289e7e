// The memory that the ranks of one group share: a control block and a ring of
// slots for each rank. It has no name, so nothing of it outlives its processes.
#ifndef SHARDPLANE_WORKER_SHM_SEGMENT_H_
#define SHARDPLANE_WORKER_SHM_SEGMENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ipc/file_descriptor.h"

namespace shardplane {

// A rank's slots; a chunk of data goes into slot (chunk % kShmSlots).
inline constexpr int kShmSlots = 4;
// Publications whose tags can be read back: a chunk has at most two, and no
// rank is more than kShmSlots chunks ahead of another.
inline constexpr int kShmTags = 2 * kShmSlots;
inline constexpr int kMaxShmRanks = 64;

struct ShmSizes {
  int ranks = 0;
  int64_t slot_bytes = 0;  // a multiple of kShmAlignment
};
inline constexpr int64_t kShmAlignment = 64;

// What one rank tells the others. Lines that different ranks write lie apart.
struct ShmControl {
  // Written by the rank itself.
  alignas(128) std::atomic<uint64_t> published;
  std::atomic<uint64_t> tags[kShmTags];  // by publication
  alignas(128) std::atomic<uint64_t> consumed;
  // 1: it has left, or ended its collectives.
  std::atomic<uint32_t> left;
  // Where it runs, plus 1; 0: it has not said so.
  std::atomic<uint32_t> core;
  // The futex that the rank sleeps on; rung by others.
  alignas(128) std::atomic<uint32_t> bell;
  std::atomic<uint32_t> sleeping;
};

// Thread-safe: it only says where things are. Shared by the channels of
// several ranks where these are threads of one process.
class ShmSegment {
 public:
  // New memory, all zero. InvalidArgument: sizes out of range.
  // ResourceExhausted: the system gives none.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Create(
      const ShmSizes& sizes);
  // The memory of another process, which has sent its descriptor.
  // InvalidArgument: it is not what `sizes` says.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Map(FileDescriptor file,
                                                         const ShmSizes& sizes);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  const ShmSizes& sizes() const { return sizes_; }
  // To be sent to other processes.
  int file() const { return file_.get(); }
  ShmControl& control(int rank) const;
  std::byte* slot(int rank, uint64_t chunk) const;

 private:
  ShmSegment(FileDescriptor file, const ShmSizes& sizes, std::byte* memory)
      : file_(std::move(file)), sizes_(sizes), memory_(memory) {}

  const FileDescriptor file_;
  const ShmSizes sizes_;
  std::byte* const memory_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SEGMENT_H_
