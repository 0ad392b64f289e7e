// Steps of redistribution that undo or complete each other. Used by
// program_finish.cc.
#ifndef SHARDPLANE_COMMON_MERGE_COLLECTIVES_H_
#define SHARDPLANE_COMMON_MERGE_COLLECTIVES_H_

#include "common/sharded_program.h"

namespace shardplane {

// Where a value is moved along a mesh dim twice, and nothing else needs what is
// between, it is moved once, or not at all:
//   all_reduce, slice             reduce_scatter
//   reduce_scatter, all_gather    all_reduce
//   all_gather, slice             all_to_all; of the same tensor dim: nothing
//   slice, all_gather             nothing
// Styles ask for such pairs: one module's for its output, the next one's for
// its input.
//
// Of a program that frees nothing yet.
void MergeCollectives(ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_MERGE_COLLECTIVES_H_
