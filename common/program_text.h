// A program's text form, or parts of it.
#ifndef SHARDPLANE_COMMON_PROGRAM_TEXT_H_
#define SHARDPLANE_COMMON_PROGRAM_TEXT_H_

#include <cstddef>
#include <string>

#include "common/device_mesh.h"
#include "common/sharded_program.h"

namespace shardplane {

// ToString's, whole lines up to about `max_bytes`; what is longer ends with
// "... (N instructions and M values in all)". The rest is never written.
std::string ProgramText(const ShardedProgram& program, size_t max_bytes);

// What a step does to any value, as programs have it between the result and
// the operand: "all_reduce[tp, sum]", "all_gather[dp, from 0 1, again]".
std::string OperationText(const Redistribute& step, const DeviceMesh& mesh);
std::string OperationText(const Bucket& bucket, const DeviceMesh& mesh);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PROGRAM_TEXT_H_
