// How one mesh dim holds a tensor.
#ifndef SHARDPLANE_COMMON_PLACEMENT_H_
#define SHARDPLANE_COMMON_PLACEMENT_H_

#include <string>
#include <variant>

#include "absl/status/statusor.h"

namespace shardplane {

enum class ReduceOp { kSum = 1, kMax, kMin };
std::string ToString(ReduceOp op);  // "sum"

// Every rank has the whole tensor. Text form: "R".
struct Replicate {
  friend bool operator==(const Replicate&, const Replicate&) = default;
};
// Each rank has one chunk of tensor dim `dim`, as torch.chunk cuts. "S(0)".
// In what a user writes, a negative dim counts from the end; everywhere behind
// Normalize it is non-negative.
struct Shard {
  int dim = 0;
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

// Shard(-1) of a rank-2 tensor -> Shard(1). InvalidArgument if the dim is out
// of range.
absl::StatusOr<Placement> Normalize(const Placement& placement,
                                    int tensor_rank);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PLACEMENT_H_
