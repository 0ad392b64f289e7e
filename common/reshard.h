// Memory of what the backward pass needs, between forward and backward. Used by
// program_finish.cc.
#ifndef SHARDPLANE_COMMON_RESHARD_H_
#define SHARDPLANE_COMMON_RESHARD_H_

#include <string>
#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// Activations of a module and those within it, the nearest one's first.
struct ReshardedInputs {
  std::string fqn;
  int mesh_dim = 0;
  int tensor_dim = 0;  // may be negative
  friend bool operator==(const ReshardedInputs&,
                         const ReshardedInputs&) = default;
};

struct ReshardOptions {
  // By mesh dim: whether parameters that are gathered along it are resharded.
  std::vector<bool> parameters;
  std::vector<ReshardedInputs> inputs = {};
};

// Parameters gathered along these mesh dims give their memory back after their
// last use forward and are gathered again, together with those that they were
// gathered with, before the first segment backward that may have kept one.
// Those that nothing is gathered after stay: backward begins with them.
//
// Activations that ops of the `inputs` modules touch, that the backward pass
// needs and that are replicated along the mesh dim there are cut along the
// tensor dim after their last use, and gathered again, each by itself, before
// the backward pass first may need them. What an all_gather along that mesh dim
// has made is cut where it was. Dims with fewer elements than ranks are left
// alone, and so is what is needed again before anything else runs.
//
// A value stays, too, if one that outlives its last use may lie in its memory:
// an output of a segment, a part of it for one rank.
//
// Of a program that frees nothing yet. Source: behaviour of
// torch.distributed.tensor.parallel.input_reshard.
void ReshardAfterForward(const ReshardOptions& options,
                         ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_RESHARD_H_
