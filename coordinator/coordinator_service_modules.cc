// The methods on modules that have a name.
#include <utility>

#include "coordinator/coordinator_service.h"
#include "coordinator/module_messages.h"
#include "coordinator/page.h"
#include "coordinator/service_calls.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

grpc::Status CoordinatorService::CreateModule(
    grpc::ServerContext* context, const pb::CreateModuleRequest* request,
    pb::ModuleResource* response) {
  return ReplyOnce(
      log_, context, *request, "CreateModule", response,
      [&](const CallContext&) -> absl::StatusOr<pb::ModuleResource> {
        SP_ASSIGN_OR_RETURN(CreateModuleCall call,
                            CreateModuleCallFromProto(*request));
        SP_ASSIGN_OR_RETURN(const ModuleRecord record,
                            coordinator_->CreateModule(std::move(call)));
        return ToProto(record, ModuleView::kWithoutBody);
      });
}

grpc::Status CoordinatorService::GetModule(grpc::ServerContext*,
                                           const pb::GetModuleRequest* request,
                                           pb::ModuleResource* response) {
  const auto get = [&]() -> absl::StatusOr<pb::ModuleResource> {
    SP_ASSIGN_OR_RETURN(const ModuleId id,
                        ParseModuleName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const ModuleRecord record, coordinator_->GetModule(id));
    return ToProto(record, ModuleView::kFull);
  };
  return Reply(get(), response);
}

grpc::Status CoordinatorService::ListModules(
    grpc::ServerContext*, const pb::ListModulesRequest* request,
    pb::ListModulesResponse* response) {
  const absl::StatusOr<PageRequest> page =
      ParsePage(request->page_size(), request->page_token(), "modules");
  if (!page.ok()) {
    return ToGrpcStatus(page.status());
  }
  response->set_next_page_token(AddPage(
      coordinator_->ListModules(), *page, "modules", IdOf,
      [response](const ModuleRecord& record) {
        *response->add_modules() = ToProto(record, ModuleView::kWithoutBody);
      }));
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::DeleteModule(
    grpc::ServerContext* context, const pb::DeleteModuleRequest* request,
    google::protobuf::Empty* response) {
  return ReplyOnce(
      log_, context, *request, "DeleteModule", response,
      [&](const CallContext&) -> absl::StatusOr<google::protobuf::Empty> {
        SP_ASSIGN_OR_RETURN(const ModuleId id,
                            ParseModuleName(request->name(), "name"));
        SP_RETURN_IF_ERROR(coordinator_->DeleteModule(
            id, request->etag(), request->allow_missing()));
        return google::protobuf::Empty();
      });
}

}  // namespace shardplane
