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
      h = H::combine(std::move(h), p.index(), ShardDim(p), BlocksOf(p),
                     partial == nullptr ? 0 : static_cast<int>(partial->op));
    }
    return H::combine(std::move(h), spec.cut_order);
  }
};

std::string ToString(const DTensorSpec& spec);

// The mesh dims that cut `tensor_dim`, first cut first.
std::vector<int> CutsOf(const DTensorSpec& spec, int tensor_dim);

// The mesh dims in the order in which a tensor goes out to all ranks from one
// that has it whole: `first`, then the others, but no cut of a tensor dim
// before those that it lies within.
//
//   [S(0), R], first 1      -> 1, 0
//   [S(0)#1, S(0)#2], first 1  -> 0, 1: the second cut is within the first
std::vector<int> TravelOrder(const DTensorSpec& spec, int first);

bool IsFullyReplicated(const DTensorSpec& spec);
bool HasPartial(const DTensorSpec& spec);
bool HasShard(const DTensorSpec& spec);

// InvalidArgument: wrong number of placements, a shard dim outside the tensor,
// a cut_order that is no permutation of the cutting mesh dims, blocks of a cut
// that is not the outermost of its dim, blocks of broken units, groups of
// replicas that do not have one unit each.
absl::Status Validate(const DTensorSpec& spec, const DeviceMesh& mesh,
                      int tensor_rank);

// InvalidArgument: blocks that are not whole units, that are not `extent`
// elements together (where that is not below 0), or whose groups of replicas
// do not have one unit each of `ranks`. None are all right.
absl::Status CheckBlocks(const Blocks& blocks, int64_t extent, int ranks);

struct Extent {
  int64_t offset = 0;
  int64_t size = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

// What torch.chunk gives part `index` of `parts`: chunks of ceil(n / parts),
// later parts less or nothing.
// (5, 4, 0) -> {0, 2}; (5, 4, 2) -> {4, 1}; (5, 4, 3) -> {5, 0}.
Extent Chunk(int64_t n, int parts, int index);

// How a dim of `extent` elements is cut: by these mesh dims, first cut first,
// the first of them by these blocks. Text form: `8/tp`, `(6*8, 2*8/2)/tp`.
struct DimCuts {
  int64_t extent = 1;
  std::vector<int> cuts;
  Blocks blocks = {};
  friend auto operator<=>(const DimCuts&, const DimCuts&) = default;
};
DimCuts CutsOfDim(absl::Span<const int64_t> shape, const DTensorSpec& spec,
                  int tensor_dim);
std::string ToString(const DimCuts& cuts, const DeviceMesh& mesh);

// What one rank has of a dim, in order: stretches that are not empty and do not
// touch. A plain cut leaves one or none.
using Stretches = absl::InlinedVector<Extent, 1>;
int64_t SizeOf(const Stretches& stretches);

// Of one cut: what part `index` of `parts` has of `n` elements.
Stretches PartOf(int64_t n, const Blocks& blocks, int parts, int index);

// Of the rank at `coordinate`.
Stretches LocalStretches(const DimCuts& cuts, const DeviceMesh& mesh,
                         absl::Span<const int> coordinate);
// Of what LocalStretches counts on, the elements that no rank before this one
// along the first cut has, too: all, but for replicas of blocks.
Stretches FirstOf(const DimCuts& cuts, const DeviceMesh& mesh,
                  absl::Span<const int> coordinate);
int64_t LocalSizeOf(const DimCuts& cuts, const DeviceMesh& mesh,
                    absl::Span<const int> coordinate);

// One of each tensor dim.
std::vector<Stretches> LocalStretches(absl::Span<const int64_t> shape,
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
