// Modules that have a name.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"

namespace shardplane {

absl::StatusOr<ModuleRecord> Coordinator::CreateModule(CreateModuleCall call) {
  ModuleId id =
      call.id.value_or(ModuleId{absl::StrCat("m", options_.random_id())});
  if (!call.validate_only) {
    absl::StatusOr<ModuleRecord> record;
    {
      absl::MutexLock lock(&mu_);
      record = modules_.Create(std::move(id), std::move(call.spec),
                               options_.random_uid(), Now());
    }
    if (record.ok()) {
      bulletin_.Show(*record);
      bulletin_.Tell(EventSeverity::kNormal, "MODULE_CREATED",
                     ResourceName(record->id),
                     absl::StrCat(record->parameter_count, " parameters"));
    }
    return record;
  }
  absl::MutexLock lock(&mu_);
  SP_RETURN_IF_ERROR(modules_.CheckRoomFor(id));
  return DescribeModule(call.id.value_or(ModuleId()), std::move(call.spec));
}

absl::StatusOr<ModuleRecord> Coordinator::GetModule(const ModuleId& id) const {
  absl::MutexLock lock(&mu_);
  return modules_.Find(id);
}

std::vector<ModuleRecord> Coordinator::ListModules() const {
  absl::MutexLock lock(&mu_);
  return modules_.List();
}

absl::Status Coordinator::DeleteModule(const ModuleId& id,
                                       absl::string_view etag,
                                       bool allow_missing) {
  {
    absl::MutexLock lock(&mu_);
    const bool there = modules_.Find(id).ok();
    SP_RETURN_IF_ERROR(modules_.Delete(id, etag, allow_missing));
    if (!there) return absl::OkStatus();
  }
  bulletin_.Hide(ResourceName(id));
  bulletin_.Tell(EventSeverity::kNormal, "MODULE_DELETED", ResourceName(id),
                 "it is deleted");
  return absl::OkStatus();
}

absl::Status Coordinator::CopyModule(DeploymentSpec* spec) const {
  if (!spec->module_id.has_value()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<ModuleRecord> record = GetModule(*spec->module_id);
  if (!record.ok()) {
    return WithMetadata(record.status(), "field", "deployment.module_name");
  }
  spec->module = *record->spec.module;
  return absl::OkStatus();
}

}  // namespace shardplane
