// A program's text form, or the beginning of it.
#ifndef SHARDPLANE_COMMON_PROGRAM_TEXT_H_
#define SHARDPLANE_COMMON_PROGRAM_TEXT_H_

#include <cstddef>
#include <string>

#include "common/sharded_program.h"

namespace shardplane {

// ToString's, whole lines up to about `max_bytes`; what is longer ends with
// "... (N instructions and M values in all)". The rest is never written.
std::string ProgramText(const ShardedProgram& program, size_t max_bytes);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PROGRAM_TEXT_H_
