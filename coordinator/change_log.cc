#include "coordinator/change_log.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

struct Etagger {
  std::string operator()(const WorkerRecord& worker) const {
    return absl::StrCat(worker.incarnation.value, "/", ToString(worker.state),
                        "/", absl::ToUnixNanos(worker.state_time), "/",
                        worker.address, "/", worker.http_address, "/",
                        worker.device, "/",
                        worker.seat.has_value() ? worker.seat->epoch.value : 0);
  }
  std::string operator()(const ModuleRecord& module) const {
    return absl::StrCat(module.uid, "/", module.etag());
  }
  std::string operator()(const DeploymentInfo& deployment) const {
    return absl::StrCat(deployment.uid, "/", deployment.etag, "/",
                        deployment.programs.size(), "/",
                        deployment.operation.value);
  }
  std::string operator()(const OperationRecord& operation) const {
    return absl::StrCat(operation.uid, "/", operation.revision);
  }
  std::string operator()(const EventRecord& event) const {
    return event.id.value;
  }
};

struct BodyRemover {
  Shown operator()(DeploymentInfo deployment) const {
    deployment.report.reset();
    if (deployment.spec != nullptr) {
      auto spec = std::make_shared<DeploymentSpec>(*deployment.spec);
      spec->module = GraphModule();
      deployment.spec = std::move(spec);
    }
    return deployment;
  }
  Shown operator()(ModuleRecord module) const {
    module.spec.module.reset();
    return module;
  }
  template <typename T>
  Shown operator()(T shown) const {
    return shown;
  }
};

absl::Status TooOld(uint64_t version, uint64_t oldest) {
  return MakeError(
      absl::StatusCode::kOutOfRange,
      absl::StrCat("resume_version: expected one since ", oldest,
                   ", as deletions before are forgotten, got: ", version),
      {.reason = "WATCH_VERSION_TOO_OLD",
       .metadata = {{"field", "resume_version"},
                    {"remedy", "watch anew, without a resume_version"}}});
}

}  // namespace

std::string ResourceName(const Shown& shown) {
  return std::visit([](const auto& value) { return ResourceName(value.id); },
                    shown);
}

std::string EtagOf(const Shown& shown) { return std::visit(Etagger(), shown); }

Shown WithoutBody(Shown shown) {
  return std::visit(
      [](auto&& value) -> Shown { return BodyRemover()(std::move(value)); },
      std::move(shown));
}

void ChangeLog::Move(const std::string& name, Entry& entry) {
  if (entry.version != 0) order_.erase(entry.version);
  entry.version = ++version_;
  order_[entry.version] = name;
}

bool ChangeLog::Put(Shown shown) {
  const std::string name = ResourceName(shown);
  std::string etag = EtagOf(shown);
  Entry& entry = entries_[name];
  const bool there = entry.version != 0 && !entry.deleted;
  if (there && entry.etag == etag) return false;
  if (entry.deleted) --deletions_;
  Move(name, entry);
  if (!there) entry.created = entry.version;
  entry.deleted = false;
  entry.etag = std::move(etag);
  entry.shown = std::make_shared<const Shown>(std::move(shown));
  return true;
}

bool ChangeLog::Remove(absl::string_view name) {
  const auto it = entries_.find(name);
  if (it == entries_.end() || it->second.deleted) return false;
  Entry& entry = it->second;
  Move(it->first, entry);
  entry.deleted = true;
  entry.shown = std::make_shared<const Shown>(WithoutBody(*entry.shown));
  ++deletions_;
  for (auto next = order_.begin(); deletions_ > kept_deletions_;) {
    const auto old = entries_.find(next->second);
    if (!old->second.deleted) {
      ++next;
      continue;
    }
    oldest_ = next->first;
    entries_.erase(old);
    next = order_.erase(next);
    --deletions_;
  }
  return true;
}

void ChangeLog::Forget(absl::string_view name) {
  const auto it = entries_.find(name);
  if (it == entries_.end() || it->second.deleted) return;
  order_.erase(it->second.version);
  entries_.erase(it);
}

std::vector<std::string> ChangeLog::Names(absl::string_view collection) const {
  const std::string prefix = absl::StrCat(collection, "/");
  std::vector<std::string> names;
  for (auto it = entries_.lower_bound(prefix);
       it != entries_.end() && absl::StartsWith(it->first, prefix); ++it) {
    if (!it->second.deleted) names.push_back(it->first);
  }
  return names;
}

absl::Status ChangeLog::Since(uint64_t version, const ChangeFilter& filter,
                              size_t limit, std::vector<Change>* changes,
                              uint64_t* to) const {
  // At the beginning nothing is known that could have been deleted.
  if (version != 0 && version < oldest_) {
    *to = oldest_;
    return TooOld(version, oldest_);
  }
  *to = version;
  for (auto it = order_.upper_bound(version); it != order_.end(); ++it) {
    if (changes->size() == limit) return absl::OkStatus();
    *to = it->first;
    const Entry& entry = entries_.at(it->second);
    const std::string collection = it->second.substr(0, it->second.find('/'));
    const bool is_new = entry.created > version;
    if ((entry.deleted && is_new) ||
        (!filter.collections.empty() &&
         filter.collections.count(collection) == 0) ||
        (!filter.name.empty() && filter.name != it->second)) {
      continue;
    }
    changes->push_back({entry.deleted ? ChangeType::kDeleted
                        : is_new      ? ChangeType::kAdded
                                      : ChangeType::kModified,
                        entry.version, entry.shown});
  }
  *to = version_ > *to ? version_ : *to;
  return absl::OkStatus();
}

}  // namespace shardplane
