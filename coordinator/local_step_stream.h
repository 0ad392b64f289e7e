// A StepStream to a worker of this machine, without gRPC.
#ifndef SHARDPLANE_COORDINATOR_LOCAL_STEP_STREAM_H_
#define SHARDPLANE_COORDINATOR_LOCAL_STEP_STREAM_H_

#include <memory>

#include "coordinator/ids.h"
#include "coordinator/step_stream.h"

namespace shardplane {

// Over the worker's step socket (ipc/step_socket.h): a step costs some ten
// microseconds of either side there, a tenth of what it does through gRPC, and
// its inputs lie in memory once for all ranks. Null: there is none, since the
// worker is somewhere else, or of another user. Has a thread until it is over.
std::shared_ptr<StepStream> OpenLocalStepStream(
    Incarnation worker, std::shared_ptr<StreamCount> count);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_LOCAL_STEP_STREAM_H_
