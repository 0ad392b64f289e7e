// Products that can be made in pieces while others travel. Used by
// program_chunks.cc.
#ifndef SHARDPLANE_COMMON_PRODUCT_CHUNKS_H_
#define SHARDPLANE_COMMON_PRODUCT_CHUNKS_H_

#include <vector>

#include "common/link_costs.h"
#include "common/sharded_program.h"

namespace shardplane {

// A tensor dim in `count` equal pieces.
struct Pieces {
  int dim = 0;
  int count = 1;
  // Where it is the dim that the collective moves: how many ranks have a part
  // of it, of which each has a piece. Else 1.
  int ranks = 1;
  friend bool operator==(const Pieces&, const Pieces&) = default;
};

// Linear ops of one segment, whose inputs are what one all-gather makes, which
// nothing else reads: each piece is gathered while they run on the one before.
struct GatheredProducts {
  int gather = 0;  // instruction
  int vary = -1;   // instruction, an alias of what it makes; -1: none
  int segment = 0;
  std::vector<int> ops;  // of the segment, in order
  Pieces pieces;
  friend bool operator==(const GatheredProducts&,
                         const GatheredProducts&) = default;
};

// A linear op whose result nothing reads but one reduce-scatter: each piece is
// scattered while the next one is made.
struct ScatteredProduct {
  int scatter = 0;  // instruction
  int segment = 0;
  int op = 0;  // of the segment
  Pieces pieces;
  friend bool operator==(const ScatteredProduct&,
                         const ScatteredProduct&) = default;
};

struct ProductChunks {
  std::vector<GatheredProducts> gathered;
  std::vector<ScatteredProduct> scattered;
};

// Of a forward pass without frees; `kept`: values that are needed after it.
//
// Two or four pieces, where the time that passes beside operators is more than
// the latency of the further collectives: beside * t * (c - 1) / c against
// latency_us * (c - 1), t being the time of the bytes and c the pieces. How
// long the products take is not known, so it can be less than that.
//
// The first dim that divides, the last one excepted; rather one that does not
// travel, since the rows of ranks must change places otherwise, a copy more.
ProductChunks FindProductChunks(const ShardedProgram& forward,
                                const std::vector<ValueId>& kept,
                                const LinkCosts& costs);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PRODUCT_CHUNKS_H_
