// Memory of gathered parameters between forward and backward. Used by
// program_finish.cc.
#ifndef SHARDPLANE_COMMON_RESHARD_H_
#define SHARDPLANE_COMMON_RESHARD_H_

#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// Parameters gathered along these mesh dims give their memory back after their
// last use forward and are gathered again, together with those that they were
// gathered with, before the first segment backward that may have kept one.
// Those that nothing is gathered after stay: backward begins with them.
//
// A parameter stays, too, if a value that outlives its last use may lie in its
// memory: an output of a segment, a part of it for one rank.
//
// Of a program that frees nothing yet. `mesh_dims`: by mesh dim.
void ReshardAfterForward(const std::vector<bool>& mesh_dims,
                         ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_RESHARD_H_
