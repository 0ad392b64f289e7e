// Gradients of weights that wait for those of inputs. Used by
// program_finish.cc.
#ifndef SHARDPLANE_COMMON_WEIGHT_GRADIENTS_H_
#define SHARDPLANE_COMMON_WEIGHT_GRADIENTS_H_

#include "common/link_costs.h"
#include "common/sharded_program.h"

namespace shardplane {

// Where the gradient of a segment's input is reduced right after the segment's
// backward, the gradients of its linear ops' weights are left out there and
// made after the reduction, which can run beside them (common/overlap). Until
// then what those ops got, and the gradients of what they gave, stay.
//
// Only where the bytes of the reduction take longer than its latency, and of a
// weight that is the weight of one aten.linear.default alone, whose input
// surely asks for a gradient.
//
// Of a program that frees nothing yet.
void DeferWeightGradients(const LinkCosts& costs, ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_WEIGHT_GRADIENTS_H_
