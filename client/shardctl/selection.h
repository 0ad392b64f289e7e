// Which resources a command is about.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_SELECTION_H_
#define SHARDPLANE_CLIENT_SHARDCTL_SELECTION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"
#include "client/shardctl/resource_kind.h"

namespace shardplane {

// Resources of one kind.
struct Selected {
  const ResourceKind* kind = nullptr;
  std::vector<MessagePtr> answers;  // keep the items
  std::vector<const google::protobuf::Message*> items;
  bool is_single = false;  // one that was named
};

// "deployments", "deploy mlp lm", "deploy/mlp workers/w-0", "wk,deploy", "all";
// --deployment says whose programs or steps, else those of all.
// An error of the service: NotFound has what may have been meant as its hint.
absl::StatusOr<std::vector<Selected>> Select(
    Invocation& invocation, const std::vector<std::string>& arguments);

// "deploy mlp lm" or "deploy/mlp workers/w-0": names alone, nothing is asked.
absl::StatusOr<std::vector<ResourceName>> NamedResources(
    const Invocation& invocation, const std::vector<std::string>& arguments);

// The one that is named. NotFound: with a hint.
absl::StatusOr<MessagePtr> GetResource(Invocation& invocation,
                                       const ResourceName& resource);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_SELECTION_H_
