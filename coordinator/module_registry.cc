#include "coordinator/module_registry.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/etag.h"

namespace shardplane {
namespace {

// Each tensor is below 2^63 bytes, all of them together need not be.
int64_t AddUpToLimit(int64_t a, int64_t b) {
  constexpr int64_t kLimit = std::numeric_limits<int64_t>::max();
  return a > kLimit - b ? kLimit : a + b;
}

}  // namespace

std::string ModuleRecord::etag() const { return absl::StrCat("\"", uid, "\""); }

ModuleRecord DescribeModule(ModuleId id, ModuleSpec spec) {
  ModuleRecord record{.id = std::move(id), .spec = std::move(spec)};
  for (const Parameter& parameter : record.spec.module->parameters()) {
    if (parameter.buffer || !parameter.alias_of.empty()) {
      continue;
    }
    record.parameter_count =
        AddUpToLimit(record.parameter_count, NumElements(parameter.type.shape));
    record.parameter_bytes =
        AddUpToLimit(record.parameter_bytes, ByteSize(parameter.type));
  }
  return record;
}

absl::Status ModuleRegistry::CheckRoomFor(const ModuleId& id) const {
  if (modules_.contains(id)) {
    return MakeError(
        absl::StatusCode::kAlreadyExists,
        absl::StrCat("module_id: expected one that is not taken, ",
                     "got: ", ResourceName(id)),
        {.reason = "MODULE_EXISTS",
         .metadata = {{"field", "module_id"}, {"resource", ResourceName(id)}}});
  }
  if (modules_.size() >= max_modules_) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("expected fewer than ", max_modules_,
                     " modules to be there, got: ", modules_.size()),
        {.reason = "TOO_MANY_MODULES",
         .metadata = {{"resource", ResourceName(id)},
                      {"expected", absl::StrCat(max_modules_)},
                      {"remedy", "delete modules that are not needed"}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<ModuleRecord> ModuleRegistry::Create(ModuleId id,
                                                    ModuleSpec spec,
                                                    std::string uid,
                                                    absl::Time now) {
  SP_RETURN_IF_ERROR(CheckRoomFor(id));
  ModuleRecord record = DescribeModule(std::move(id), std::move(spec));
  record.uid = std::move(uid);
  record.create_time = now;
  modules_.emplace(record.id, record);
  return record;
}

absl::StatusOr<ModuleRecord> ModuleRegistry::Find(const ModuleId& id) const {
  const auto it = modules_.find(id);
  if (it == modules_.end()) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("expected a module that is there, got: ",
                                  ResourceName(id)),
                     {.reason = "MODULE_NOT_FOUND",
                      .metadata = {{"resource", ResourceName(id)},
                                   {"remedy", "create it with CreateModule"}}});
  }
  return it->second;
}

std::vector<ModuleRecord> ModuleRegistry::List() const {
  std::vector<ModuleRecord> records;
  records.reserve(modules_.size());
  for (const auto& [unused, record] : modules_) {
    records.push_back(record);
  }
  return records;
}

absl::Status ModuleRegistry::Delete(const ModuleId& id, absl::string_view etag,
                                    bool allow_missing) {
  const absl::StatusOr<ModuleRecord> record = Find(id);
  if (!record.ok()) {
    return allow_missing ? absl::OkStatus() : record.status();
  }
  SP_RETURN_IF_ERROR(CheckEtag(etag, record->etag(), ResourceName(id)));
  modules_.erase(id);
  return absl::OkStatus();
}

}  // namespace shardplane
