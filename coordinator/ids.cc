#include "coordinator/ids.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status BadName(absl::string_view name, absl::string_view field,
                     absl::string_view expected) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected a name like ", expected,
                                ", got: \"", name, "\""),
                   {.reason = "RESOURCE_NAME_INVALID",
                    .metadata = {{"field", std::string(field)},
                                 {"expected", std::string(expected)}}});
}

// "deployments/a/programs/b" -> {"a", "b"} for the collections
// {"deployments", "programs"}; nullopt for any other form.
std::optional<std::vector<std::string>> SplitName(
    absl::string_view name, const std::vector<absl::string_view>& collections) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 2 * collections.size()) {
    return std::nullopt;
  }
  std::vector<std::string> ids;
  for (size_t i = 0; i < collections.size(); ++i) {
    if (parts[2 * i] != collections[i] || parts[2 * i + 1].empty()) {
      return std::nullopt;
    }
    ids.push_back(parts[2 * i + 1]);
  }
  return ids;
}

}  // namespace

std::string ResourceName(const WorkerId& id) {
  return absl::StrCat("workers/", id.value);
}

std::string ResourceName(const ModuleId& id) {
  return absl::StrCat("modules/", id.value);
}

std::string ResourceName(const DeploymentId& id) {
  return absl::StrCat("deployments/", id.value);
}

std::string ResourceName(const OperationId& id) {
  return absl::StrCat("operations/", id.value);
}

std::string ResourceName(const EventId& id) {
  return absl::StrCat("events/", id.value);
}

std::string ResourceName(const DeploymentId& deployment,
                         const ProgramId& program) {
  return absl::StrCat(ResourceName(deployment), "/programs/", program.value);
}

std::string ResourceName(const DeploymentId& deployment, StepNumber number) {
  return absl::StrCat(ResourceName(deployment), "/steps/", number.value);
}

absl::StatusOr<WorkerId> ParseWorkerName(absl::string_view name,
                                         absl::string_view field) {
  const auto ids = SplitName(name, {"workers"});
  if (!ids.has_value()) {
    return BadName(name, field, "workers/{worker}");
  }
  return WorkerId{ids->at(0)};
}

absl::StatusOr<ModuleId> ParseModuleName(absl::string_view name,
                                         absl::string_view field) {
  const auto ids = SplitName(name, {"modules"});
  if (!ids.has_value()) {
    return BadName(name, field, "modules/{module}");
  }
  return ModuleId{ids->at(0)};
}

absl::StatusOr<DeploymentId> ParseDeploymentName(absl::string_view name,
                                                 absl::string_view field) {
  const auto ids = SplitName(name, {"deployments"});
  if (!ids.has_value()) {
    return BadName(name, field, "deployments/{deployment}");
  }
  return DeploymentId{ids->at(0)};
}

absl::StatusOr<OperationId> ParseOperationName(absl::string_view name,
                                               absl::string_view field) {
  const auto ids = SplitName(name, {"operations"});
  if (!ids.has_value()) {
    return BadName(name, field, "operations/{operation}");
  }
  return OperationId{ids->at(0)};
}

absl::StatusOr<ProgramName> ParseProgramName(absl::string_view name,
                                             absl::string_view field) {
  const auto ids = SplitName(name, {"deployments", "programs"});
  if (!ids.has_value()) {
    return BadName(name, field, "deployments/{deployment}/programs/{program}");
  }
  return ProgramName{DeploymentId{ids->at(0)}, ProgramId{ids->at(1)}};
}

absl::StatusOr<StepName> ParseStepName(absl::string_view name,
                                       absl::string_view field) {
  const auto ids = SplitName(name, {"deployments", "steps"});
  StepName step;
  if (!ids.has_value() || !absl::SimpleAtoi(ids->at(1), &step.number.value) ||
      absl::StrCat(step.number.value) != ids->at(1)) {
    return BadName(name, field, "deployments/{deployment}/steps/{number}");
  }
  step.deployment = DeploymentId{ids->at(0)};
  return step;
}

bool IsResourceId(absl::string_view id) {
  return !id.empty() && id.size() <= 63 && absl::ascii_islower(id[0]) &&
         id.back() != '-' && std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
         });
}

bool IsWorkerId(absl::string_view id) {
  return !id.empty() && id.size() <= 253 &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '.' || c == '_';
         });
}

}  // namespace shardplane
