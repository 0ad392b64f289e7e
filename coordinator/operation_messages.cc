#include "coordinator/operation_messages.h"

#include <algorithm>
#include <array>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "coordinator/messages.h"
#include "coordinator/module_messages.h"
#include "proto/convert/field_path.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr std::array<absl::string_view, 5> kCollections = {
    "workers", "modules", "deployments", "operations", "events"};

struct ResourceSetter {
  pb::WatchEvent* event;
  void operator()(const WorkerRecord& worker) const {
    *event->mutable_worker() = ToProto(worker);
  }
  void operator()(const ModuleRecord& module) const {
    *event->mutable_module() = ToProto(module, ModuleView::kWithoutBody);
  }
  void operator()(const DeploymentInfo& deployment) const {
    *event->mutable_deployment() = ToProto(deployment, DeploymentView::kBasic);
  }
  void operator()(const OperationRecord& operation) const {
    *event->mutable_operation() = ToProto(operation);
  }
  void operator()(const EventRecord& told) const {
    *event->mutable_event() = ToProto(told);
  }
};

double PercentOf(const OperationRecord& operation) {
  if (operation.state == OperationState::kSucceeded) return 100;
  const OperationProgress& progress = operation.progress;
  if (progress.bytes_total <= 0) return 0;
  return 100.0 * static_cast<double>(progress.bytes_done) /
         static_cast<double>(progress.bytes_total);
}

absl::Status AnotherCoordinator(absl::string_view text) {
  return MakeError(
      absl::StatusCode::kOutOfRange,
      absl::StrCat("resume_version: expected one of this coordinator's, got: ",
                   text),
      {.reason = "WATCH_VERSION_TOO_OLD",
       .metadata = {{"field", "resume_version"},
                    {"remedy", "watch anew, without a resume_version"}}});
}

}  // namespace

pb::Operation ToProto(const OperationRecord& operation) {
  pb::Operation message;
  message.set_name(ResourceName(operation.id));
  message.set_uid(operation.uid);
  SetTime(operation.create_time, message.mutable_create_time());
  SetTime(operation.update_time, message.mutable_update_time());
  if (operation.end_time.has_value()) {
    SetTime(*operation.end_time, message.mutable_end_time());
  }
  message.set_kind(static_cast<pb::Operation::Kind>(operation.kind));
  message.set_resource(ResourceName(operation.deployment));
  message.set_state(static_cast<pb::Operation::State>(operation.state));
  message.set_phase(operation.progress.phase);
  message.set_bytes_done(operation.progress.bytes_done);
  message.set_bytes_total(operation.progress.bytes_total);
  message.set_percent(PercentOf(operation));
  if (!operation.error.ok()) {
    *message.mutable_error() = ToRpcStatus(operation.error);
  }
  return message;
}

pb::Event ToProto(const EventRecord& event) {
  pb::Event message;
  message.set_name(ResourceName(event.id));
  SetTime(event.create_time, message.mutable_create_time());
  message.set_severity(static_cast<pb::Event::Severity>(event.severity));
  message.set_reason(event.reason);
  message.set_resource(event.resource);
  message.set_message(event.message);
  return message;
}

pb::StepTimeline ToProto(const DeploymentId& deployment,
                         const StepTrace& trace) {
  pb::StepTimeline message;
  message.set_name(
      absl::StrCat(ResourceName(deployment, trace.marks.number), "/timeline"));
  message.set_epoch(trace.epoch.value);
  message.set_traceparent(trace.marks.traceparent);
  message.set_received_unix_nanos(absl::ToUnixNanos(trace.marks.received));
  message.set_queue_nanos(absl::ToInt64Nanoseconds(trace.marks.queue));
  message.set_dispatch_nanos(absl::ToInt64Nanoseconds(trace.marks.dispatch));
  message.set_total_nanos(absl::ToInt64Nanoseconds(trace.marks.total));
  for (size_t rank = 0; rank < trace.ranks.size(); ++rank) {
    const RankTrace& from = trace.ranks[rank];
    pb::RankTimeline& to = *message.add_ranks();
    to.set_worker(ResourceName(from.worker));
    to.set_rank(static_cast<int>(rank));
    to.set_received_unix_nanos(from.received_unix);
    *to.mutable_run() = ToProto(from.run);
    for (int i = 0; i < to.run().spans_size(); ++i) {
      to.mutable_run()->mutable_spans(i)->set_wait_nanos(from.waits[i]);
    }
    to.set_run_nanos(from.run_nanos);
    to.set_agree_nanos(from.agree_nanos);
    to.set_update_nanos(from.update_nanos);
  }
  return message;
}

pb::StepResult Summary(const DeploymentId& deployment,
                       const StepAnswer& answer) {
  pb::StepResult message = ToProto(deployment, answer);
  message.clear_collectives();
  message.clear_peak_run_bytes();
  message.clear_timelines();
  return message;
}

std::string VersionText(Incarnation coordinator, uint64_t version) {
  return absl::StrCat(coordinator.value, "-", version);
}

absl::StatusOr<uint64_t> ParseVersion(Incarnation coordinator,
                                      absl::string_view text) {
  if (text.empty()) return 0;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '-');
  uint64_t incarnation = 0;
  uint64_t version = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &incarnation) ||
      !absl::SimpleAtoi(parts[1], &version)) {
    return InvalidField("resume_version",
                        absl::StrCat("expected a version that a watch told, "
                                     "got: \"",
                                     text, "\""));
  }
  if (incarnation != coordinator.value) return AnotherCoordinator(text);
  return version;
}

pb::WatchEvent ToProto(Incarnation coordinator, const Change& change) {
  pb::WatchEvent message;
  message.set_type(static_cast<pb::WatchEvent::Type>(change.type));
  message.set_version(VersionText(coordinator, change.version));
  std::visit(ResourceSetter{&message}, *change.shown);
  return message;
}

absl::StatusOr<ChangeFilter> FilterFromProto(const pb::WatchRequest& request) {
  ChangeFilter filter{.name = request.name()};
  for (int i = 0; i < request.collections_size(); ++i) {
    const std::string& collection = request.collections(i);
    if (std::find(kCollections.begin(), kCollections.end(), collection) ==
        kCollections.end()) {
      return InvalidField(
          absl::StrCat("collections[", i, "]"),
          absl::StrCat("expected one of ", absl::StrJoin(kCollections, ", "),
                       ", got: \"", collection, "\""));
    }
    filter.collections.insert(collection);
  }
  return filter;
}

}  // namespace shardplane
