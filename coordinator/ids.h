// Distinct types for the numbers and names that the coordinator deals in, and
// the resource names made of them.
#ifndef SHARDPLANE_COORDINATOR_IDS_H_
#define SHARDPLANE_COORDINATOR_IDS_H_

#include <compare>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

template <typename Tag, typename T>
struct Id {
  T value{};
  friend auto operator<=>(const Id&, const Id&) = default;
};

// Stable across restarts of the process: `w0` in workers/w0.
using WorkerId = Id<struct WorkerIdTag, std::string>;
// `mlp` in modules/mlp.
using ModuleId = Id<struct ModuleIdTag, std::string>;
// `d7f3a1c0` in deployments/d7f3a1c0.
using DeploymentId = Id<struct DeploymentIdTag, std::string>;
// `p1b2c3d4e5f6` in deployments/{d}/programs/{p}.
using ProgramId = Id<struct ProgramIdTag, std::string>;
// `o7f3a1c0` in operations/o7f3a1c0.
using OperationId = Id<struct OperationIdTag, std::string>;
// Digits, in events/{e}; later ones sort behind.
using EventId = Id<struct EventIdTag, std::string>;
// One life of a worker process; random, without order.
using Incarnation = Id<struct IncarnationTag, uint64_t>;
// One formation of a gang; a later gang has a larger one.
using GangEpoch = Id<struct GangEpochTag, uint64_t>;
// Of a deployment's numbered actions; the first is 1, 0 is "none yet".
using StepNumber = Id<struct StepNumberTag, uint64_t>;

std::string ResourceName(const WorkerId& id);      // "workers/w0"
std::string ResourceName(const ModuleId& id);      // "modules/mlp"
std::string ResourceName(const DeploymentId& id);  // "deployments/d7f3a1c0"
std::string ResourceName(const OperationId& id);   // "operations/o7f3a1c0"
std::string ResourceName(const EventId& id);       // "events/0…042"
std::string ResourceName(const DeploymentId& deployment,
                         const ProgramId& program);
std::string ResourceName(const DeploymentId& deployment, StepNumber number);

// The ways back. InvalidArgument, naming `field`, for another form.
absl::StatusOr<WorkerId> ParseWorkerName(absl::string_view name,
                                         absl::string_view field);
absl::StatusOr<ModuleId> ParseModuleName(absl::string_view name,
                                         absl::string_view field);
absl::StatusOr<DeploymentId> ParseDeploymentName(absl::string_view name,
                                                 absl::string_view field);
absl::StatusOr<OperationId> ParseOperationName(absl::string_view name,
                                               absl::string_view field);

struct ProgramName {
  DeploymentId deployment;
  ProgramId program;
};
absl::StatusOr<ProgramName> ParseProgramName(absl::string_view name,
                                             absl::string_view field);

struct StepName {
  DeploymentId deployment;
  StepNumber number;
};
// A number is written in one way only: "7", not "07" or "+7".
absl::StatusOr<StepName> ParseStepName(absl::string_view name,
                                       absl::string_view field);

// Whether `id` may be the last part of a resource name that a client chooses:
// a lower-case letter, then at most 62 letters, digits and hyphens, the last
// no hyphen.
bool IsResourceId(absl::string_view id);
// As a worker may call itself: 1 to 253 letters, digits, hyphens, dots and
// underscores.
bool IsWorkerId(absl::string_view id);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_IDS_H_
