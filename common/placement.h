// How one mesh dim holds a tensor.
#ifndef SHARDPLANE_COMMON_PLACEMENT_H_
#define SHARDPLANE_COMMON_PLACEMENT_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace shardplane {

enum class ReduceOp { kSum = 1, kMax, kMin };
std::string ToString(ReduceOp op);  // "sum"

// Every rank has the whole tensor. Text form: "R".
struct Replicate {
  friend bool operator==(const Replicate&, const Replicate&) = default;
};
// One stretch of a dim that is cut by itself, as torch.chunk cuts, in units
// that stay whole: query heads, then key heads, of a fused projection. Text
// form: 6 heads of 8 are `6*8`, 2 that two ranks each have are `2*8/2`, and 16
// with units of 1 are `16`.
struct Block {
  int64_t size = 0;  // in elements
  int64_t unit = 1;  // divides size
  // So many neighbouring ranks have the same part. Above 1, each such group of
  // ranks has one unit: units times replicas are the mesh dim's size.
  int replicas = 1;
  // Of gradients, with replicas: the part is the sum of what these ranks have.
  bool partial = false;
  friend auto operator<=>(const Block&, const Block&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Block& b) {
    return H::combine(std::move(h), b.size, b.unit, b.replicas, b.partial);
  }
};

// The blocks of a packed Shard, one after the other; none: the whole dim, in
// units of 1. A value whose copies share one list.
class Blocks {
 public:
  Blocks() = default;
  static Blocks Of(std::vector<Block> list);

  bool empty() const { return list_ == nullptr; }
  const std::vector<Block>& list() const;
  int64_t size() const;       // of all together, in elements
  bool has_replicas() const;  // some block has
  bool partial() const;       // some block is
  // One unit, which all of `ranks` have.
  bool IsSharedByAll(int ranks) const;
  // The same with blocks that have replicas partial, or not.
  Blocks WithPartial(bool partial) const;

  friend bool operator==(const Blocks& a, const Blocks& b) {
    return a.list_ == b.list_ || a.list() == b.list();
  }
  friend auto operator<=>(const Blocks& a, const Blocks& b) {
    return a.list() <=> b.list();
  }
  template <typename H>
  friend H AbslHashValue(H h, const Blocks& blocks) {
    return H::combine(std::move(h), blocks.list());
  }

 private:
  std::shared_ptr<const std::vector<Block>> list_;  // null: none
};
std::string ToString(const Blocks& blocks);  // "6*8, 2*8/2"

// Each rank has one chunk of tensor dim `dim`, as torch.chunk cuts. "S(0)".
// With blocks it is packed: of each block one chunk. "S(0: 48, 16, 16)". It is
// then the outermost cut of its dim.
// In what a user writes, a negative dim counts from the end; everywhere behind
// Normalize it is non-negative.
struct Shard {
  int dim = 0;
  Blocks blocks = {};
  friend bool operator==(const Shard&, const Shard&) = default;
};
// The tensor is the reduction of what the ranks have. "P(sum)".
struct Partial {
  ReduceOp op = ReduceOp::kSum;
  friend bool operator==(const Partial&, const Partial&) = default;
};

using Placement = std::variant<Replicate, Shard, Partial>;

std::string ToString(const Placement& placement);

inline bool IsReplicate(const Placement& p) {
  return std::holds_alternative<Replicate>(p);
}
inline bool IsPartial(const Placement& p) {
  return std::holds_alternative<Partial>(p);
}
// The tensor dim that `p` cuts, or -1.
inline int ShardDim(const Placement& p) {
  const Shard* shard = std::get_if<Shard>(&p);
  return shard == nullptr ? -1 : shard->dim;
}

// Of a Shard; none of others.
inline Blocks BlocksOf(const Placement& p) {
  const Shard* shard = std::get_if<Shard>(&p);
  return shard == nullptr ? Blocks{} : shard->blocks;
}
// Whether the ranks of `fine` have less of the same than those of `coarse`,
// because groups that share a unit of a block there share it out here.
bool Refines(const Shard& fine, const Shard& coarse);

// A rank has the same as others, of all of it or of some block.
inline bool HasReplicas(const Placement& p) {
  return IsReplicate(p) || BlocksOf(p).has_replicas();
}

// Shard(-1) of a rank-2 tensor -> Shard(1). InvalidArgument if the dim is out
// of range.
absl::StatusOr<Placement> Normalize(const Placement& placement,
                                    int tensor_rank);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PLACEMENT_H_
