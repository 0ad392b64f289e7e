// Optimizers: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_
#define SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/optimizer.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// Of all groups together, each group counted as one more.
inline constexpr int kMaxGroupPatterns = 20'000;

// With common's Validate. Unimplemented, naming it: a kind of a name that this
// release does not know.
absl::StatusOr<OptimizerOptions> FromProto(const v1::Optimizer& message,
                                           const FieldPath& field);
v1::Optimizer ToProto(const OptimizerOptions& options);

// An error of the core about an optimizer, with the place of the optimizer in
// the request before the field that it names. OK stays OK.
absl::Status InOptimizer(const absl::Status& status, const FieldPath& field);

// InvalidArgument unless it is above 0; infinity is.
absl::Status CheckClipNorm(double clip_norm, const FieldPath& field);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_
