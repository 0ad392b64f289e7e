#include "worker/stored_tensors.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "common/errors.h"
#include "common/host_tensor.h"

namespace shardplane {
namespace {

// Fills a tensor from its first element to its last.
class Filler {
 public:
  Filler(const WeightFiles::Found& found, const at::Tensor& target,
         int64_t chunk_bytes)
      : runs_(found.file),
        dtype_(ToScalarType(found.tensor.type.dtype)),
        // Of one element: contiguous whatever its strides.
        target_(target.as_strided({target.numel()}, {1})),
        element_size_(ByteSize(found.tensor.type.dtype)),
        direct_(target.is_cpu() && target.scalar_type() == dtype_) {
    chunk_elements_ = direct_
                          ? target.numel()
                          : std::max<int64_t>(1, chunk_bytes / element_size_);
  }

  // The next bytes are these of the file.
  absl::Status Append(int64_t offset, int64_t bytes) {
    while (bytes > 0) {
      if (room_.empty()) NextChunk();
      const auto count = std::min(bytes, static_cast<int64_t>(room_.size()));
      SP_RETURN_IF_ERROR(runs_.Read(offset, room_.subspan(0, count)));
      room_.remove_prefix(count);
      offset += count;
      bytes -= count;
      if (room_.empty()) FlushChunk();
    }
    return absl::OkStatus();
  }

 private:
  void NextChunk() {
    const int64_t count = std::min(chunk_elements_, target_.numel() - filled_);
    // Memory that the device still reads is not handed out again.
    chunk_ =
        direct_ ? target_
                : at::empty({count},
                            at::dtype(dtype_).pinned_memory(!target_.is_cpu()));
    room_ = absl::MakeSpan(static_cast<char*>(chunk_.data_ptr()),
                           count * element_size_);
  }

  void FlushChunk() {
    if (!direct_) {
      const at::Tensor there =
          chunk_.to(target_.device(), /*non_blocking=*/true);
      target_.narrow(0, filled_, chunk_.numel()).copy_(there);
    }
    filled_ += chunk_.numel();
  }

  RunReader runs_;
  const at::ScalarType dtype_;  // of the file's
  const at::Tensor target_;     // of one dim
  const int64_t element_size_;  // of the file's
  const bool direct_;           // the file's bytes are the target's
  int64_t chunk_elements_ = 0;
  int64_t filled_ = 0;  // elements
  at::Tensor chunk_;
  absl::Span<char> room_;  // of the chunk
};

}  // namespace

bool CanBecome(const TensorType& stored, const TensorType& wanted) {
  return stored.shape == wanted.shape &&
         (stored.dtype == wanted.dtype ||
          (IsFloatingPoint(stored.dtype) && IsFloatingPoint(wanted.dtype)));
}

absl::StatusOr<at::Tensor> LoadPart(const WeightFiles::Found& found,
                                    absl::Span<const Stretches> part,
                                    const LoadOptions& options) {
  std::vector<int64_t> sizes;
  for (const Stretches& dim : part) sizes.push_back(SizeOf(dim));
  at::Tensor local = at::empty(
      sizes, at::dtype(ToScalarType(options.dtype)).device(options.device));
  Filler filler(found, local, options.chunk_bytes);
  absl::Status status;
  VisitRuns(found.tensor.type, part,
            [&](int64_t from, int64_t /*to*/, int64_t bytes) {
              if (!status.ok()) return;
              status = filler.Append(found.tensor.offset + from, bytes);
            });
  SP_RETURN_IF_ERROR(status);
  return local;
}

}  // namespace shardplane
