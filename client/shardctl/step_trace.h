// Where a step spent its time, for people and for trace viewers.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_STEP_TRACE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_STEP_TRACE_H_

#include <cstdint>
#include <string>

#include "client/shardctl/table.h"
#include "nlohmann/json.hpp"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// Nanoseconds of a rank's step, each counted once.
struct RankTimes {
  int64_t queue = 0;     // from when the worker got it until its run began
  int64_t compute = 0;   // operators, slices and sums
  int64_t wait = 0;      // in collectives, for other ranks
  int64_t transfer = 0;  // in collectives, the rest
  int64_t agree = 0;
  int64_t update = 0;
};
RankTimes TimesOf(const v1::RankTimeline& rank);

// A table of the ranks, under a line of the coordinator's own times.
std::string TimelineText(const v1::StepTimeline& timeline,
                         const TableLayout& layout);

// The Trace Event Format, which https://ui.perfetto.dev and chrome://tracing
// open: a process a worker, with lanes for operators, collectives, and those
// that run beside others' work, as the Python client has them; the coordinator
// is a process, too. Times are microseconds since the step came, by each
// process's own clock.
nlohmann::ordered_json ChromeTrace(const v1::StepTimeline& timeline);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_STEP_TRACE_H_
