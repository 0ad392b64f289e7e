// A StepStream over gRPC.
#ifndef SHARDPLANE_COORDINATOR_GRPC_STEP_STREAM_H_
#define SHARDPLANE_COORDINATOR_GRPC_STEP_STREAM_H_

#include <memory>

#include "coordinator/step_stream.h"
#include "grpcpp/channel.h"

namespace shardplane {

// Calls Worker.Steps. Shared with gRPC until the call is over.
std::shared_ptr<StepStream> OpenGrpcStepStream(
    const std::shared_ptr<grpc::Channel>& channel,
    std::shared_ptr<StreamCount> count);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_GRPC_STEP_STREAM_H_
