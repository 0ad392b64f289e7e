// Where a tensor lies on a mesh, and which part of it a rank has.
#ifndef SHARDPLANE_COMMON_TENSOR_SPEC_H_
#define SHARDPLANE_COMMON_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/placement.h"
#include "common/tensor_type.h"

namespace shardplane {

// One placement per mesh dim. Two mesh dims may cut one tensor dim; they cut
// in the mesh's order unless `cut_order` says otherwise: it lists the mesh
// dims that cut, first cut first, and is empty when that is the mesh's order.
// Text form: `[S(0), R]`; with an order of its own `[S(0)#2, S(0)#1]`.
using Placements = absl::InlinedVector<Placement, 3>;  // by mesh dim
struct DTensorSpec {
  Placements placements;
  std::vector<int> cut_order;

  static DTensorSpec Replicated(int mesh_ndim) {
    return {Placements(mesh_ndim, Replicate{}), {}};
  }
  friend bool operator==(const DTensorSpec&, const DTensorSpec&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const DTensorSpec& spec) {
    for (const Placement& p : spec.placements) {
      const auto* partial = std::get_if<Partial>(&p);
      h = H::combine(std::move(h), p.index(), ShardDim(p),
                     partial == nullptr ? 0 : static_cast<int>(partial->op));
    }
    return H::combine(std::move(h), spec.cut_order);
  }
};

std::string ToString(const DTensorSpec& spec);

// The mesh dims that cut `tensor_dim`, first cut first.
std::vector<int> CutsOf(const DTensorSpec& spec, int tensor_dim);

bool IsFullyReplicated(const DTensorSpec& spec);
bool HasPartial(const DTensorSpec& spec);
bool HasShard(const DTensorSpec& spec);

// InvalidArgument: wrong number of placements, a shard dim outside the tensor,
// a cut_order that is no permutation of the cutting mesh dims.
absl::Status Validate(const DTensorSpec& spec, const DeviceMesh& mesh,
                      int tensor_rank);

struct Extent {
  int64_t offset = 0;
  int64_t size = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

// What torch.chunk gives part `index` of `parts`: chunks of ceil(n / parts),
// later parts less or nothing.
// (5, 4, 0) -> {0, 2}; (5, 4, 2) -> {4, 1}; (5, 4, 3) -> {5, 0}.
Extent Chunk(int64_t n, int parts, int index);

// The part of a dim of `n` elements that the rank at `coordinate` has when
// `cuts` (mesh dims, first cut first) cut it one after the other.
Extent LocalExtent(int64_t n, absl::Span<const int> cuts,
                   const DeviceMesh& mesh, absl::Span<const int> coordinate);

// One extent per tensor dim.
std::vector<Extent> LocalExtents(absl::Span<const int64_t> shape,
                                 const DTensorSpec& spec,
                                 const DeviceMesh& mesh,
                                 absl::Span<const int> coordinate);

Shape LocalShape(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                 const DeviceMesh& mesh, absl::Span<const int> coordinate);
// The number of elements of that shape.
int64_t LocalElements(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                      const DeviceMesh& mesh, absl::Span<const int> coordinate);
int64_t LocalBytes(const TensorType& type, const DTensorSpec& spec,
                   const DeviceMesh& mesh, absl::Span<const int> coordinate);
// Of the rank that has the first chunk, the largest, of every cut.
int64_t LargestBytes(const TensorType& type, const DTensorSpec& spec,
                     const DeviceMesh& mesh);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_TENSOR_SPEC_H_
