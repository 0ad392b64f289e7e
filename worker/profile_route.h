// GET /profile of a worker: a trace of its next training steps.
#ifndef SHARDPLANE_WORKER_PROFILE_ROUTE_H_
#define SHARDPLANE_WORKER_PROFILE_ROUTE_H_

#include "telemetry/http_server.h"
#include "worker/step_profiler.h"

namespace shardplane {

// "/profile?steps=3&seconds=60", which these are if they are left out: the next
// so many training steps, waited for so long. 200 with the trace; 400 for other
// parameters; 503 where another call waits or the worker ends; 504 where there
// are fewer steps in the time; 500 with what went wrong. Borrows `profiler`.
HttpRoute ProfileRoute(StepProfiler* profiler);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PROFILE_ROUTE_H_
