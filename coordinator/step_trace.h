// Where a training step spent its time: the coordinator's and all ranks'.
#ifndef SHARDPLANE_COORDINATOR_STEP_TRACE_H_
#define SHARDPLANE_COORDINATOR_STEP_TRACE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/sharded_program.h"
#include "common/timeline.h"
#include "coordinator/ids.h"
#include "coordinator/step_history.h"

namespace shardplane {

// One rank's part; nanoseconds, by the clock of its worker's host.
struct RankTrace {
  WorkerId worker;
  int64_t received_unix = 0;
  Timeline run;
  std::vector<int64_t> waits;  // by span of `run`; see WaitsForPeers
  int64_t run_nanos = 0;
  int64_t agree_nanos = 0;
  int64_t update_nanos = 0;
};

struct StepTrace {
  GangEpoch epoch;
  StepMarks marks;
  std::vector<RankTrace> ranks;  // by rank
};

// By rank and span: of a collective, how long the rank stood in it until the
// last rank of its group had begun it, too; 0 of anything else. The rest of a
// collective's time is transfer. As true as the hosts' clocks agree.
//
//   all_reduce[tp]: rank 0 from 10 to 50, rank 1 from 40 to 50  ->  30 and 0
std::vector<std::vector<int64_t>> WaitsForPeers(
    const ShardedProgram& program, absl::Span<const Timeline> by_rank);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_TRACE_H_
