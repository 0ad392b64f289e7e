// A deployment's parameters, made where they belong.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_MATERIALIZE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_MATERIALIZE_H_

#include "absl/status/status.h"
#include "client/shardctl/command.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// Begins it, and shows how far it has come until the deployment is READY.
// Errors: the operation's own; DeadlineExceeded after `limit`.
absl::Status Materialize(Invocation& invocation,
                         const v1::Deployment& deployment,
                         absl::Duration limit);

// Waits for the operation, with its progress on stderr. DeadlineExceeded: it
// has not ended in time. Where it has failed, its error.
absl::Status WaitForOperation(Invocation& invocation, const std::string& name,
                              absl::Duration limit);

// The error of what has not come to its end in time.
absl::Status WaitTimedOut(const std::string& what, const std::string& state);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_MATERIALIZE_H_
