// What each rank holds: the memory lines of a report.
#ifndef SHARDPLANE_COMMON_REPORT_MEMORY_H_
#define SHARDPLANE_COMMON_REPORT_MEMORY_H_

#include <vector>

#include "common/report.h"

namespace shardplane {

// One line a rank, for the first kMaxReportedRanks of the mesh.
std::vector<RankMemory> EstimateMemory(const GraphModule& module,
                                       const DeviceMesh& mesh,
                                       const ResolvedPlan& plan,
                                       const ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_REPORT_MEMORY_H_
