#include "coordinator/module_messages.h"

#include <memory>
#include <utility>

#include "common/errors.h"
#include "coordinator/messages.h"
#include "proto/convert/module.h"

namespace shardplane {

absl::StatusOr<CreateModuleCall> CreateModuleCallFromProto(
    const v1::CreateModuleRequest& request) {
  CreateModuleCall call;
  if (!request.module().has_module()) {
    return MissingField("module.module");
  }
  SP_ASSIGN_OR_RETURN(GraphModule module,
                      FromProto(request.module().module(), "module.module"));
  call.spec.module = std::make_shared<const GraphModule>(std::move(module));
  call.spec.labels.insert(request.module().labels().begin(),
                          request.module().labels().end());
  if (!request.module_id().empty()) {
    SP_RETURN_IF_ERROR(CheckResourceId(request.module_id(), "module_id"));
    call.id = ModuleId{request.module_id()};
  }
  call.validate_only = request.validate_only();
  return call;
}

v1::ModuleResource ToProto(const ModuleRecord& record, ModuleView view) {
  v1::ModuleResource message;
  if (!record.id.value.empty()) {
    message.set_name(ResourceName(record.id));
  }
  if (!record.uid.empty()) {  // else a dry run
    message.set_uid(record.uid);
    message.set_etag(record.etag());
    SetTime(record.create_time, message.mutable_create_time());
    SetTime(record.create_time, message.mutable_update_time());
  }
  message.mutable_labels()->insert(record.spec.labels.begin(),
                                   record.spec.labels.end());
  if (view == ModuleView::kFull) {
    *message.mutable_module() = ToProto(*record.spec.module);
  }
  message.set_parameter_count(record.parameter_count);
  message.set_parameter_bytes(record.parameter_bytes);
  return message;
}

}  // namespace shardplane
