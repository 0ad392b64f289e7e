// Parts of tensors that lie in files, straight to where they shall be.
#ifndef SHARDPLANE_WORKER_STORED_TENSORS_H_
#define SHARDPLANE_WORKER_STORED_TENSORS_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"
#include "worker/torch_tensors.h"
#include "worker/weights/weight_files.h"

namespace shardplane {

// Whether a tensor of `stored` can be one of `wanted`: of the same shape, and
// of its element type or both of floating-point types.
bool CanBecome(const TensorType& stored, const TensorType& wanted);

struct LoadOptions {
  DType dtype = DType::kFloat32;  // what to convert to, as Tensor.copy_ does
  c10::Device device = c10::Device(c10::kCPU);
  // What is not read to where it shall be is read in chunks of this many bytes.
  int64_t chunk_bytes = kStagingBytes;
};

// The part of a stored tensor that the stretches name (one list per dim), and
// no other bytes of its file but those between short runs. Contiguous. To a GPU
// by way of pinned memory: begun, as CopyTo. Errors: SafetensorsFile::Read's.
absl::StatusOr<at::Tensor> LoadPart(const WeightFiles::Found& found,
                                    absl::Span<const Stretches> part,
                                    const LoadOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_STORED_TENSORS_H_
