// Named modules: wire <-> coordinator. Errors carry the field's path.
#ifndef SHARDPLANE_COORDINATOR_MODULE_MESSAGES_H_
#define SHARDPLANE_COORDINATOR_MODULE_MESSAGES_H_

#include "absl/status/statusor.h"
#include "coordinator/coordinator.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// With the module's own checks, GraphModule::Create's among them.
absl::StatusOr<CreateModuleCall> CreateModuleCallFromProto(
    const v1::CreateModuleRequest& request);

enum class ModuleView { kFull, kWithoutBody };
v1::ModuleResource ToProto(const ModuleRecord& record, ModuleView view);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_MODULE_MESSAGES_H_
