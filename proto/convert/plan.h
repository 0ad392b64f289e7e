// Parallelize plans: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_PLAN_H_
#define SHARDPLANE_PROTO_CONVERT_PLAN_H_

#include "absl/status/statusor.h"
#include "common/parallelize_plan.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

// Dicts within dicts.
inline constexpr int kMaxPlanDepth = 24;
inline constexpr int kMaxPlanEntries = 100'000;

// Absent layouts take PyTorch's defaults (Colwise: R -> S(-1), Rowwise:
// S(-1) -> R). As PyTorch's constructors do, refused are: input layouts
// without desired ones, lists of different lengths (for kwargs: numbers of
// keys; the keys themselves need not agree), a PrepareModuleOutput without
// layouts. Desired input layouts without a claim change nothing, as there.
// use_local_output changes nothing and is forgotten.
absl::StatusOr<ParallelStyle> FromProto(const v1::ParallelStyle& message,
                                        const FieldPath& field);
v1::ParallelStyle ToProto(const ParallelStyle& style);

absl::StatusOr<ParallelizePlan> FromProto(const v1::ParallelizePlan& message,
                                          const FieldPath& field);
v1::ParallelizePlan ToProto(const ParallelizePlan& plan);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_PLAN_H_
