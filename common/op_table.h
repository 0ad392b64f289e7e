// The op table: a row for each target that has a sharding rule, and what is
// known of those that have none. Used by op_rules.cc alone.
#ifndef SHARDPLANE_COMMON_OP_TABLE_H_
#define SHARDPLANE_COMMON_OP_TABLE_H_

#include "absl/strings/string_view.h"
#include "common/op_builders.h"

namespace shardplane {

// nullptr: no row. `target` is "aten.linear.default".
const OpRow* FindRow(absl::string_view target);

enum class Rowless {
  kSafe,           // functional and deterministic: may run alike everywhere
  kRandom,         // draws numbers, which would differ by rank
  kDataDependent,  // the shape of its result follows from values
  kUnknown,
};
Rowless KindOfRowless(absl::string_view target);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_TABLE_H_
