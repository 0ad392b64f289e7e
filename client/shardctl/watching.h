// `--watch`: resources as they change.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_WATCHING_H_
#define SHARDPLANE_CLIENT_SHARDCTL_WATCHING_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"
#include "client/shardctl/resource_kind.h"

namespace shardplane {

// What there is of a kind, or of one that is named, as a table, then a row for
// each change; with -o json or yaml each resource by itself; until the command
// is ended, or --timeout is over. `keep`: which ones.
absl::StatusOr<ExitCode> Watch(
    Invocation& invocation, const ResourceKind& kind, const std::string& name,
    const std::function<bool(const google::protobuf::Message&)>& keep);

// `get KIND [NAME] --watch`.
absl::StatusOr<ExitCode> WatchKind(Invocation& invocation);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_WATCHING_H_
