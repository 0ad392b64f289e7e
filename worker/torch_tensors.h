// Host tensors as torch tensors, and back.
#ifndef SHARDPLANE_WORKER_TORCH_TENSORS_H_
#define SHARDPLANE_WORKER_TORCH_TENSORS_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "c10/core/ScalarType.h"
#include "common/host_tensor.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"

namespace shardplane {

at::ScalarType ToScalarType(DType dtype);
// Throws c10::TypeError for an element type that DType lacks.
DType FromScalarType(at::ScalarType type);

TensorType TypeOf(const at::Tensor& tensor);

// Of the host's memory that a GPU reads and writes without it, at a time.
inline constexpr int64_t kStagingBytes = int64_t{32} << 20;

// Contiguous tensors of one type and size, between the host and a GPU through
// chunks of memory that the GPU reads and writes itself (kPinned). To a GPU it
// is begun: the stream's next kernels see it, and `from` may go. From a GPU it
// is done.
enum class Staging { kPinned, kPlain };
void CopyInChunks(const at::Tensor& from, const at::Tensor& to,
                  int64_t chunk_bytes, Staging staging);

// The bytes of a contiguous tensor: uint8[nbytes], a view. What travels is
// bytes where nothing is added up: Gloo knows no bool, NCCL no int16.
at::Tensor AsBytes(const at::Tensor& tensor);

// A contiguous copy on `device`; between host and GPU as CopyInChunks.
at::Tensor CopyTo(const at::Tensor& tensor, c10::Device device);
at::Tensor ToTorch(const HostTensor& tensor, c10::Device device);
// The part of `global` that the stretches name (one list per dim), as a
// contiguous copy: f32[8, 4] with {{{2, 2}}, {{0, 4}}} -> rows 2 and 3.
at::Tensor SliceToTorch(const HostTensor& global,
                        absl::Span<const Stretches> part, c10::Device device);
// The same values as bytes say them: LibTorch keeps conjugates and negatives of
// parts of complex numbers as views, marked to be read so. Else `tensor`.
at::Tensor Resolved(const at::Tensor& tensor);
HostTensor FromTorch(const at::Tensor& tensor);

// These elements of a dim, in order; a view, but where there are several
// stretches.
at::Tensor NarrowTo(const at::Tensor& tensor, int dim, const Stretches& part);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TORCH_TENSORS_H_
