// PairwiseParallel and PairwiseSequenceParallel as styles of single modules.
#ifndef SHARDPLANE_COMMON_PAIRING_H_
#define SHARDPLANE_COMMON_PAIRING_H_

#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/plan_matching.h"

namespace shardplane {

// Replaces each match of a pairwise style by those of the modules within it
// that it pairs, in the order of the tree:
// - The linears that are immediate children of one module, if there are two at
//   least. One that reads nothing of another is ColwiseParallel, and one that
//   reads what a colwise one makes is RowwiseParallel, in whatever way it gets
//   there; a colwise one that no rowwise one reads is left alone. The style's
//   input layout is that of the colwise ones before which there is no rowwise
//   one, its output layout that of the rowwise ones after which there is none:
//     net1 -> relu -> net2 -> net3          net1 colwise, net2 rowwise
//     wq, wk, wv -> attention -> wo         wq, wk, wv colwise, wo rowwise
//     down(silu(gate(x)) * up(x))           gate, up colwise, down rowwise
//   A module that has pairs of its own needs its input whole, and is between
//   no pair. Where no graph says who reads whom, which is so before a module is
//   exported, every second one is rowwise, in the order of registration.
// - A MultiheadAttention, which keeps the match, as a PairwiseParallel, and its
//   out_proj, which is rowwise.
// A note says what was paired (PAIRED), a warning that there was nothing
// (NOTHING_PAIRED). A match of a module that is itself a linear or an embedding
// stays as it is, and is a fault.
void ExpandPairs(const GraphModule& module, PlanMatches* matches);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PAIRING_H_
