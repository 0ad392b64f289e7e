// Modules with their graphs: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_MODULE_H_
#define SHARDPLANE_PROTO_CONVERT_MODULE_H_

#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/graph_module.h"
#include "google/protobuf/map.h"
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

// Named arguments: a node's kwargs, a module's attributes. `name` is the map's
// own in `field`.
using ArgumentMap = absl::btree_map<std::string, Argument>;
absl::StatusOr<ArgumentMap> ArgumentsFromProto(
    const google::protobuf::Map<std::string, v1::Argument>& messages,
    const FieldPath& field, absl::string_view name);
void ArgumentsToProto(
    const ArgumentMap& arguments,
    google::protobuf::Map<std::string, v1::Argument>* messages);

// Checks each node by itself; that references resolve is GraphModule::Create's
// to say (or, for a loss graph, Compile's).
absl::StatusOr<Graph> FromProto(const v1::Graph& message,
                                const FieldPath& field);
v1::Graph ToProto(const Graph& graph);

// With the checks of GraphModule::Create and CompleteParameters: a module of a
// known type without a graph that lists no parameters has those that its
// attributes imply, and they are meta. A meta parameter without an initializer
// gets the default of the type of the module that owns it (Unimplemented where
// there is none); an initializer on a parameter that is not meta is refused,
// and so are requires_grad and random values on a dtype that is not floating.
absl::StatusOr<GraphModule> FromProto(const v1::Module& message,
                                      const FieldPath& field);
v1::Module ToProto(const GraphModule& module);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_MODULE_H_
