// What each rank holds: the memory lines of a report.
#ifndef SHARDPLANE_COMMON_REPORT_MEMORY_H_
#define SHARDPLANE_COMMON_REPORT_MEMORY_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/report.h"

namespace shardplane {

// One line a rank, for the first kMaxReportedRanks of the mesh.
std::vector<RankMemory> EstimateMemory(const GraphModule& module,
                                       const DeviceMesh& mesh,
                                       const ResolvedPlan& plan,
                                       const ShardedProgram* program);

// The most bytes that inputs, activations and gradients of activations take at
// one time at `coordinate`. A value lives from the instruction that makes it to
// the Free that names it; what a segment keeps to itself lives until its
// backward has run, or dies with it if it has none. Parameters and their
// gradients are not in it.
int64_t PeakActivationBytes(const ShardedProgram& program,
                            absl::Span<const int> coordinate);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_REPORT_MEMORY_H_
