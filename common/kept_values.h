// What autograd keeps of a segment.
#ifndef SHARDPLANE_COMMON_KEPT_VALUES_H_
#define SHARDPLANE_COMMON_KEPT_VALUES_H_

#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// The values that a recorded segment's ops keep for its backward
// (common/op_memory), by their first keeper; of operators that the table lacks,
// all that they touch.
std::vector<ValueId> KeptValues(const Segment& segment);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_KEPT_VALUES_H_
