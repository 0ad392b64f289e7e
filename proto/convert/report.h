// Reports and counts: common -> wire, and counts back. Errors as in
// convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_REPORT_H_
#define SHARDPLANE_PROTO_CONVERT_REPORT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/parallelize_plan.h"
#include "common/report.h"
#include "google/protobuf/repeated_field.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

v1::Report ToProto(const Report& report);
v1::Diagnostic ToProto(const Diagnostic& diagnostic);

v1::CollectiveCount ToProto(const CollectiveCount& count);
// For `*response.mutable_collectives() = CountsToProto(counts)`.
google::protobuf::RepeatedPtrField<v1::CollectiveCount> CountsToProto(
    absl::Span<const CollectiveCount> counts);
// Refused: an empty phase or kind, a negative number.
absl::StatusOr<std::vector<CollectiveCount>> CountsFromProto(
    const google::protobuf::RepeatedPtrField<v1::CollectiveCount>& messages,
    const FieldPath& field);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_REPORT_H_
