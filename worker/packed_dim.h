// Packed cuts (common/placement.h) of tensors: what a rank has of a dim, and
// the way to dims that collectives cut in equal chunks.
#ifndef SHARDPLANE_WORKER_PACKED_DIM_H_
#define SHARDPLANE_WORKER_PACKED_DIM_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "common/placement.h"
#include "common/tensor_spec.h"

namespace shardplane {

// One cut of dim `dim`, of `extent` elements, over `ranks`. Any thread.
class PackedDim {
 public:
  PackedDim(int dim, int64_t extent, const Blocks& blocks, int ranks);

  // Of rank 0, which has most.
  int64_t chunk() const { return SizeOf(Part(0)); }
  Stretches Part(int rank) const;
  // The whole dim as one chunk a rank, zeros behind: what a reduce-scatter or a
  // scatter hands out. [64] in blocks of 48 and 16 over 4 -> 4 x (12 + 4).
  at::Tensor ByRank(const at::Tensor& whole) const;
  // The way back: each element from the first rank that has it.
  at::Tensor Whole(const at::Tensor& by_rank) const;
  // What of a chunk is the rank's own.
  at::Tensor Own(const at::Tensor& chunk, int rank) const;

  // The blocks that have replicas, of this rank's part `own`: each in the slot
  // of the ranks that share it, zeros elsewhere. [.., slots * part]. Summed
  // over all ranks, FromSlots has the sums over those that share.
  at::Tensor ToSlots(const at::Tensor& own, int rank) const;
  at::Tensor FromSlots(const at::Tensor& own, const at::Tensor& slots,
                       int rank) const;
  // `own` with zeros for what a rank before this one has, too.
  at::Tensor OnceEach(const at::Tensor& own, int rank) const;

 private:
  struct Piece {
    const Block* block = nullptr;
    Extent within;      // the block
    int64_t local = 0;  // where it begins in the rank's part
  };
  std::vector<Piece> PiecesOf(int rank) const;  // one a block

  const int dim_;
  const int64_t extent_;
  const Blocks blocks_;
  const int ranks_;
};

// Where the elements of `inner` lie among those of `outer`, which has them all.
Stretches Locate(const Stretches& outer, const Stretches& inner);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PACKED_DIM_H_
