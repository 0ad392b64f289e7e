// The Worker service's messages <-> what GangWorker takes.
#ifndef SHARDPLANE_WORKER_WORKER_CONVERT_H_
#define SHARDPLANE_WORKER_WORKER_CONVERT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "shardplane/v1/worker.pb.h"
#include "worker/gang_worker.h"

namespace shardplane {

// InvalidArgument with the field's path for whatever is missing or bad.
GangCall ToGangCall(const v1::GangRef& message);
absl::StatusOr<GangSpec> ToGangSpec(const v1::JoinGangRequest& message);
absl::StatusOr<MaterializeSpec> ToMaterializeSpec(
    const v1::MaterializeRequest& message);
// Moves the bytes of its inputs.
absl::StatusOr<GangRun> ToGangRun(v1::RunRequest message);
absl::StatusOr<GangCommit> ToGangCommit(const v1::CommitRequest& message);
// The same.
absl::StatusOr<GangStep> ToGangStep(v1::StepsRequest::Step message);
absl::StatusOr<TensorKey> ToTensorKey(const v1::TensorRef& message);

void FillResponse(RunResult result, v1::RunResponse& response);
void FillResponse(const StepTimeline& timeline,
                  v1::GetTimelineResponse& response);
v1::StepsResponse::Step ToAnswer(uint64_t step,
                                 absl::StatusOr<StepOutcome> outcome);

// The staging key of an upload.
std::string UploadKey(const std::string& id);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_WORKER_CONVERT_H_
