// How many collectives of each kind there are, and what they carry.
#ifndef SHARDPLANE_COMMON_COLLECTIVE_COUNT_H_
#define SHARDPLANE_COMMON_COLLECTIVE_COUNT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/sharded_program.h"

namespace shardplane {

// Collectives of one kind in one phase ("materialize", "forward", "backward",
// "optimizer"), on rank 0. Kinds: "all_gather", "all_reduce",
// "reduce_scatter", "all_to_all", "scatter", "broadcast".
struct CollectiveCount {
  std::string phase;
  std::string kind;
  int64_t count = 0;
  int64_t bytes = 0;  // larger buffer, padding included, summed
  friend bool operator==(const CollectiveCount&,
                         const CollectiveCount&) = default;
};

// Counts by kind of what a rank ran in one phase, kinds in a fixed order.
std::vector<CollectiveCount> CountCollectives(
    const std::string& phase, absl::Span<const CollectiveRecord> records);

// The same, one collective at a time.
class CollectiveTally {
 public:
  // `kind` is one of CollectiveCount's.
  void Add(const std::string& kind, int64_t bytes);
  // Kinds that did not occur are left out.
  std::vector<CollectiveCount> Take(const std::string& phase) &&;

 private:
  std::vector<CollectiveCount> rows_ = {
      {"", "all_gather"}, {"", "all_reduce"}, {"", "reduce_scatter"},
      {"", "all_to_all"}, {"", "scatter"},    {"", "broadcast"},
  };
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_COLLECTIVE_COUNT_H_
