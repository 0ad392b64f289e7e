// Optimizers: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_
#define SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_

#include "absl/status/statusor.h"
#include "common/optimizer.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// With common's Validate. Unimplemented, naming it: a kind of a name that this
// release does not know.
absl::StatusOr<OptimizerOptions> FromProto(const v1::Optimizer& message,
                                           const FieldPath& field);
v1::Optimizer ToProto(const OptimizerOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_OPTIMIZER_H_
