// Which collectives run beside other work. Used by program_finish.cc.
#ifndef SHARDPLANE_COMMON_OVERLAP_H_
#define SHARDPLANE_COMMON_OVERLAP_H_

#include "common/sharded_program.h"

namespace shardplane {

struct OverlapOptions {
  // Parameters are gathered one unit ahead: forward and, where they are
  // gathered again, backward.
  bool prefetch = true;
  // Gradients are reduced while the backward pass goes on.
  bool gradients = true;
  // Gradients of weights are made after those of inputs, which are reduced
  // beside that (common/weight_gradients).
  bool input_gradients = true;
  // Products are made in pieces beside the collectives that their operands come
  // from or their results go into (common/product_chunks).
  bool chunks = true;
  friend bool operator==(const OverlapOptions&,
                         const OverlapOptions&) = default;
};

// Makes collectives async where there is work between what they need and what
// needs them. They begin in the order in which they ran, but for parameters
// that are gathered ahead. Of those, one unit is under way at a time, and of
// reductions of gradients one: that bounds their memory.
//
// Of a program that frees nothing yet.
void Overlap(const OverlapOptions& options, ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OVERLAP_H_
