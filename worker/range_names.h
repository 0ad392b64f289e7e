// What profilers show of a program: names of its operators and instructions.
#ifndef SHARDPLANE_WORKER_RANGE_NAMES_H_
#define SHARDPLANE_WORKER_RANGE_NAMES_H_

#include <string>
#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// By op: the FQN of its module. What the root module calls, and what no module
// does, has the operator's name: "aten.add.Tensor".
std::vector<std::string> OperatorNames(const Segment& segment);

// By instruction, as the program's text has it, with names of values for their
// numbers:
//   "all_reduce[tp, sum] net2", "wait layers.0.wq.weight, layers.0.wk.weight",
//   "backward of net1, relu, net2", "weight gradients of net1.weight"
// Of more than three names the first three, and how many more. "": nothing is
// shown, as its operators are, or as it hardly takes time.
std::vector<std::string> InstructionNames(const ShardedProgram& program);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_RANGE_NAMES_H_
