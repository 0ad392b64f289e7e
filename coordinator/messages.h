// The coordinator's own values: wire <-> coordinator. What proto/convert is
// for common. Errors carry the field's path, as there.
#ifndef SHARDPLANE_COORDINATOR_MESSAGES_H_
#define SHARDPLANE_COORDINATOR_MESSAGES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "google/protobuf/timestamp.pb.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

void SetTime(absl::Time time, google::protobuf::Timestamp* message);
// InvalidArgument, naming `field`, unless it may end a resource's name.
absl::Status CheckResourceId(absl::string_view id, const FieldPath& field);

absl::StatusOr<CreateCall> CreateCallFromProto(
    const v1::CreateDeploymentRequest& request);
absl::StatusOr<SignatureSpec> SignatureSpecFromProto(
    const v1::ProgramSignature& signature);
absl::StatusOr<ForwardCall> ForwardCallFromProto(
    const v1::ForwardRequest& request);
// `digest` is DigestOf the request. Tensors of a request that is moved here are
// not copied.
absl::StatusOr<StepCall> StepCallFromProto(v1::StepRequest request,
                                           std::string digest);
absl::StatusOr<UploadCall> UploadCallFromProto(
    const v1::UploadTensorRequest::Header& header);
absl::StatusOr<DownloadCall> DownloadCallFromProto(
    const v1::DownloadTensorRequest& request);

enum class DeploymentView { kFull, kWithoutModule, kBasic };
v1::Deployment ToProto(const DeploymentInfo& info, DeploymentView view);
enum class ProgramView { kFull, kWithoutReport };
v1::Program ToProto(const DeploymentProgram& program, ProgramView view);
v1::ForwardResponse ToProto(ForwardAnswer answer);
v1::StepResult ToProto(const DeploymentId& deployment,
                       const StepAnswer& answer);
v1::WorkerNode ToProto(const WorkerRecord& worker);
v1::Timeline ToProto(const Timeline& timeline);

// Of a request without its id and without the epoch, which a repeated call may
// have learned anew.
std::string DigestOf(const v1::StepRequest& request);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_MESSAGES_H_
