// A tensor's bytes in host memory, and how shards make up a global tensor.
#ifndef SHARDPLANE_COMMON_HOST_TENSOR_H_
#define SHARDPLANE_COMMON_HOST_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"

namespace shardplane {

// Row-major, little-endian; bytes.size() == ByteSize(type).
struct HostTensor {
  TensorType type;
  std::string bytes;
  friend bool operator==(const HostTensor&, const HostTensor&) = default;
};

// The ranks whose shards AssembleGlobal needs, in order: one representative of
// each group of replicas (the one with coordinate 0 along replicated dims).
std::vector<int> RanksToAssemble(const DTensorSpec& spec,
                                 const DeviceMesh& mesh);

// The global tensor from the shards of RanksToAssemble, in that order. Partial
// shards are summed (max, min) in rank order; f16 and bf16 by way of f32.
// InvalidArgument: Partials of several ops, or complex numbers whose Partials
// are no sums. Internal if a shard has not the local shape of its rank.
absl::StatusOr<HostTensor> AssembleGlobal(const TensorType& type,
                                          const DTensorSpec& spec,
                                          const DeviceMesh& mesh,
                                          absl::Span<const HostTensor> shards);

// Calls `visit(global offset, local offset, bytes)` for each run of bytes that
// lies together in both a global tensor and the part of it that the stretches
// name (one list per dim), in the part's order: none is empty. Example: rows 2
// and 3 of f32[8, 4] are one run, (32, 0, 32).
using VisitRun = absl::FunctionRef<void(int64_t global_offset,
                                        int64_t local_offset, int64_t bytes)>;
void VisitRuns(const TensorType& global, absl::Span<const Stretches> part,
               VisitRun visit);

// The part of a global tensor that the stretches name (one list per dim).
HostTensor SliceHost(const HostTensor& global,
                     absl::Span<const Stretches> part);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_HOST_TENSOR_H_
