// What a worker checks of one segment, wherever it stands. Used by
// sharded_program_validate.cc.
#ifndef SHARDPLANE_COMMON_SEGMENT_CHECK_H_
#define SHARDPLANE_COMMON_SEGMENT_CHECK_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/sharded_program.h"

namespace shardplane {

// InvalidArgument, PROGRAM_INVALID.
absl::Status ProgramError(absl::string_view message);

absl::Status CheckMeshDim(const ShardedProgram& program, int mesh_dim);

// InvalidArgument: an op that reads what the segment does not have, an id or a
// mesh dim out of range.
absl::Status CheckSegment(const ShardedProgram& program,
                          const Segment& segment);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SEGMENT_CHECK_H_
