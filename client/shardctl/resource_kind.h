// Kinds of resources: their names, how to get them, their tables.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_KIND_H_
#define SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_KIND_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/shardctl/table.h"
#include "google/protobuf/message.h"

namespace shardplane {

using MessagePtr = std::unique_ptr<google::protobuf::Message>;

struct ResourceKind {
  std::string plural;  // also the collection of names: "deployments"
  std::string singular;
  std::vector<std::string> short_names;
  bool of_deployment = false;  // deployments/{d}/{plural}/{name}
  bool watched = false;        // Watch follows it
  bool in_all = false;         // `get all` has it
  std::vector<Column> columns;
  // Of one of the kind.
  Table::Row (*row)(const google::protobuf::Message&, absl::Time now);
  // The answer of its List method; `parent` is a deployment where it has one.
  absl::StatusOr<MessagePtr> (*list)(Client&, const std::string& parent);
  absl::StatusOr<MessagePtr> (*get)(Client&, const std::string& name);
};

const std::vector<ResourceKind>& ResourceKinds();

// By plural, singular or short name. Usage error: there is none, with what may
// have been meant.
absl::StatusOr<const ResourceKind*> FindKind(const std::string& name);

// What an argument means, with the kind before it if there is one:
//
//   "deploy/mlp"                      deployments/mlp
//   "deployments/mlp/steps/3"         itself, a step
//   "mlp" after "deployments"         deployments/mlp
//   "3" after "steps", parent "mlp"   deployments/mlp/steps/3
struct ResourceName {
  const ResourceKind* kind = nullptr;
  std::string name;  // full
};
absl::StatusOr<ResourceName> ParseResource(const std::string& text,
                                           const ResourceKind* kind,
                                           const std::string& parent);

// The first repeated field of a List answer.
std::vector<const google::protobuf::Message*> ItemsOf(
    const google::protobuf::Message& list);
std::string NameOf(const google::protobuf::Message& resource);

// "mlp" or "deploy/mlp" -> "deployments/mlp".
absl::StatusOr<std::string> DeploymentName(const std::string& text);
absl::StatusOr<std::string> WorkerName(const std::string& text);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_KIND_H_
