// Modules with their graphs: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_MODULE_H_
#define SHARDPLANE_PROTO_CONVERT_MODULE_H_

#include "absl/status/statusor.h"
#include "common/graph_module.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

// Lists within lists; also bounds the recursion over what a stranger sent.
inline constexpr int kMaxArgumentDepth = 16;
inline constexpr int kMaxNodesPerGraph = 200'000;
inline constexpr int kMaxModules = 200'000;
inline constexpr int kMaxParameters = 200'000;

absl::StatusOr<Argument> FromProto(const v1::Argument& message,
                                   const FieldPath& field);
v1::Argument ToProto(const Argument& argument);

// Checks each node by itself; that references resolve is GraphModule::Create's
// to say (or, for a loss graph, Compile's).
absl::StatusOr<Graph> FromProto(const v1::Graph& message,
                                const FieldPath& field);
v1::Graph ToProto(const Graph& graph);

// With GraphModule::Create's checks. A meta parameter without an initializer
// gets the default of the type of the module that owns it; an initializer on a
// parameter that is not meta is refused, and so is requires_grad on a dtype
// that carries no gradient.
absl::StatusOr<GraphModule> FromProto(const v1::Module& message,
                                      const FieldPath& field);
v1::Module ToProto(const GraphModule& module);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_MODULE_H_
