#include "client/shardctl/materialize.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/error_info.h"
#include "client/shardctl/progress_bar.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/text_values.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

// How often progress is asked for.
constexpr absl::Duration kAsk = absl::Milliseconds(200);

std::string ProgressText(const pb::Operation& operation, size_t width) {
  return BarText(operation.phase(), operation.percent() / 100,
                 absl::StrCat(BytesText(operation.bytes_done()), " of ",
                              BytesText(operation.bytes_total())),
                 width);
}

absl::Status EndOf(const pb::Operation& operation) {
  if (operation.state() == pb::Operation::STATE_SUCCEEDED) {
    return absl::OkStatus();
  }
  if (operation.state() == pb::Operation::STATE_FAILED) {
    return FromRpcStatus(operation.error());
  }
  return ClientError(absl::StatusCode::kCancelled, "OPERATION_CANCELLED", "",
                     absl::StrCat(operation.name(), " was cancelled"));
}

}  // namespace

absl::Status WaitTimedOut(const std::string& what, const std::string& state) {
  return ClientError(
      absl::StatusCode::kDeadlineExceeded, "WAIT_TIMED_OUT", "",
      absl::StrCat(what, " has not come to it in time, and is ", state));
}

absl::Status WaitForOperation(Invocation& invocation, const std::string& name,
                              absl::Duration limit) {
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const Environment& environment = invocation.environment();
  const absl::Time end = invocation.now() + limit;
  ProgressLine line(environment.err, environment.err_is_terminal);
  while (true) {
    const absl::Duration left = end - invocation.now();
    absl::StatusOr<pb::Operation> operation = (*client)->WaitOperation(
        name, std::clamp(left, absl::ZeroDuration(), kAsk));
    if (!operation.ok()) return operation.status();
    line.Show(ProgressText(*operation, environment.width));
    if (operation->state() != pb::Operation::STATE_RUNNING) {
      return EndOf(*operation);
    }
    if (left <= absl::ZeroDuration()) {
      return WaitTimedOut(name, StateText(operation->state()));
    }
  }
}

absl::Status Materialize(Invocation& invocation,
                         const pb::Deployment& deployment,
                         absl::Duration limit) {
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  pb::MaterializeDeploymentRequest request;
  request.set_name(deployment.name());
  request.set_epoch(deployment.epoch());
  request.set_no_wait(true);
  absl::StatusOr<pb::Deployment> begun =
      (*client)->MaterializeDeployment(request);
  if (!begun.ok()) return begun.status();
  // A coordinator that does not know no_wait answers when it is done.
  if (begun->state() == pb::Deployment::STATE_READY ||
      begun->operation().empty()) {
    return absl::OkStatus();
  }
  return WaitForOperation(invocation, begun->operation(), limit);
}

}  // namespace shardplane
