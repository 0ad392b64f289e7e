// The method that explains.
#include <utility>

#include "common/errors.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/messages.h"
#include "coordinator/service_calls.h"
#include "proto/convert/explanation.h"
#include "proto/convert/types.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

grpc::Status CoordinatorService::ExplainDeployment(
    grpc::ServerContext*, const pb::ExplainDeploymentRequest* request,
    pb::Explanation* response) {
  const auto explain = [&]() -> absl::StatusOr<pb::Explanation> {
    if (request->has_dry_run() == !request->name().empty()) {
      return InvalidField("name",
                          request->has_dry_run()
                              ? "expected a name or a dry_run, got: both"
                              : "expected a name or a dry_run, got: neither");
    }
    if (request->has_dry_run()) {
      SP_ASSIGN_OR_RETURN(CreateCall call,
                          CreateCallFromProto(request->dry_run()));
      SP_ASSIGN_OR_RETURN(
          const Explanation explanation,
          coordinator_->ExplainDryRun(std::move(call), request->fqn()));
      return ToProto(explanation);
    }
    SP_ASSIGN_OR_RETURN(const DeploymentId id,
                        ParseDeploymentName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const Explanation explanation,
                        coordinator_->ExplainDeployment(id, request->fqn()));
    return ToProto(explanation);
  };
  return Reply(explain(), response);
}

}  // namespace shardplane
