// The values that an op of a segment reads.
#ifndef SHARDPLANE_COMMON_OP_VALUES_H_
#define SHARDPLANE_COMMON_OP_VALUES_H_

#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// In the order of its arguments, lists in place, keyword arguments last; one
// that is used twice is there twice.
std::vector<ValueId> ValuesReadBy(const Op& op);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_VALUES_H_
