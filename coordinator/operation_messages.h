// Operations, events, changes, steps' timelines: coordinator -> wire.
#ifndef SHARDPLANE_COORDINATOR_OPERATION_MESSAGES_H_
#define SHARDPLANE_COORDINATOR_OPERATION_MESSAGES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/change_log.h"
#include "coordinator/event_log.h"
#include "coordinator/ids.h"
#include "coordinator/operation_registry.h"
#include "coordinator/step_trace.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

v1::Operation ToProto(const OperationRecord& operation);
v1::Event ToProto(const EventRecord& event);
v1::StepTimeline ToProto(const DeploymentId& deployment,
                         const StepTrace& trace);
v1::StepResult Summary(const DeploymentId& deployment,
                       const StepAnswer& answer);

// A version as clients have it: bound to one coordinator's life.
//   incarnation 7, 12 -> "7-12"
std::string VersionText(Incarnation coordinator, uint64_t version);
// "" is 0. OutOfRange: another coordinator's. InvalidArgument: no version.
absl::StatusOr<uint64_t> ParseVersion(Incarnation coordinator,
                                      absl::string_view text);
v1::WatchEvent ToProto(Incarnation coordinator, const Change& change);
// InvalidArgument: a collection that there is not.
absl::StatusOr<ChangeFilter> FilterFromProto(const v1::WatchRequest& request);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_OPERATION_MESSAGES_H_
