// What the coordinator says to a worker: its own values <-> the wire.
#ifndef SHARDPLANE_COORDINATOR_WORKER_MESSAGES_H_
#define SHARDPLANE_COORDINATOR_WORKER_MESSAGES_H_

#include "absl/status/statusor.h"
#include "coordinator/worker_client.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {

v1::GangRef ToProto(const GangRef& gang);
v1::TensorRef ToProto(const TensorKey& key);
v1::MaterializeRequest ToProto(const GangRef& gang,
                               const MaterializeCall& call);
v1::RunRequest ToProto(const GangRef& gang, const RunCall& call);
v1::CommitRequest ToProto(const GangRef& gang, const CommitCall& call);

// Internal: what no worker should answer.
absl::StatusOr<RunOutcome> OutcomeFromProto(const v1::RunResponse& response);
StepRecording RecordingFromProto(const v1::GetTimelineResponse& response);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_WORKER_MESSAGES_H_
