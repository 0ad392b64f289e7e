#include "client/shardctl/resource_rows.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

constexpr auto kRight = Column::Align::kRight;
constexpr auto kLeft = Column::Align::kLeft;
constexpr auto kWide = Column::Shown::kWide;

template <typename Resource>
const Resource& As(const Message& message) {
  return *google::protobuf::DynamicCastToGenerated<const Resource>(&message);
}

std::string CountOf(int count) { return absl::StrCat(count); }

std::string DurationOf(const pb::Operation& operation, absl::Time now) {
  absl::Time end = now;
  if (operation.has_end_time()) {
    end = absl::FromUnixSeconds(operation.end_time().seconds()) +
          absl::Nanoseconds(operation.end_time().nanos());
  }
  return AgeSince(operation.create_time(), end);
}

}  // namespace

std::string MeshText(const pb::DeviceMesh& mesh) {
  return absl::StrCat(
      "[",
      absl::StrJoin(mesh.dims(), ", ",
                    [](std::string* out, const pb::MeshDim& dim) {
                      absl::StrAppend(out, dim.name(), "=", dim.size());
                    }),
      "]");
}

std::string StateText(pb::WorkerNode::State state) {
  return EnumText(pb::WorkerNode::State_Name(state), "STATE_");
}
std::string StateText(pb::Deployment::State state) {
  return EnumText(pb::Deployment::State_Name(state), "STATE_");
}
std::string StateText(pb::Operation::State state) {
  return EnumText(pb::Operation::State_Name(state), "STATE_");
}

std::string TypesText(
    const google::protobuf::RepeatedPtrField<pb::OutputSpec>& specs) {
  return OrNone(absl::StrJoin(specs, ", ",
                              [](std::string* out, const pb::OutputSpec& spec) {
                                absl::StrAppend(out, TypeText(spec.type()));
                              }));
}

std::string LossText(const pb::StepResult& step) {
  const std::optional<double> loss = ScalarOf(step.loss());
  return loss.has_value() ? absl::StrFormat("%.6g", *loss) : kNone;
}

std::vector<Column> WorkerColumns() {
  return {{"NAME"},
          {"STATE"},
          {"DEVICE"},
          {"DEPLOYMENT"},
          {"RANK", kRight},
          {"IN STATE", kRight},
          {"ADDRESS", kLeft, kWide},
          {"METRICS", kLeft, kWide},
          {"REASON", kLeft, kWide}};
}

Table::Row WorkerRow(const Message& message, absl::Time now) {
  const auto& worker = As<pb::WorkerNode>(message);
  const bool serves = !worker.deployment().empty();
  return {LastPart(worker.name()),
          StateText(worker.state()),
          OrNone(worker.device()),
          serves ? LastPart(worker.deployment()) : kNone,
          serves ? absl::StrCat(worker.rank()) : kNone,
          AgeSince(worker.state_time(), now),
          OrNone(worker.address()),
          OrNone(worker.http_address()),
          OrNone(worker.state_reason())};
}

std::vector<Column> ModuleColumns() {
  return {{"NAME"},
          {"PARAMETERS", kRight},
          {"SIZE", kRight},
          {"AGE", kRight},
          {"UID", kLeft, kWide}};
}

Table::Row ModuleRow(const Message& message, absl::Time now) {
  const auto& module = As<pb::ModuleResource>(message);
  return {LastPart(module.name()), absl::StrCat(module.parameter_count()),
          BytesText(module.parameter_bytes()),
          AgeSince(module.create_time(), now), module.uid()};
}

std::vector<Column> DeploymentColumns() {
  return {{"NAME"},
          {"STATE"},
          {"MESH"},
          {"WORKERS", kRight},
          {"PROGRAMS", kRight},
          {"LAST STEP", kRight},
          {"AGE", kRight},
          {"MODULE", kLeft, kWide},
          {"EPOCH", kLeft, kWide},
          {"REASON", kLeft, kWide}};
}

Table::Row DeploymentRow(const Message& message, absl::Time now) {
  const auto& deployment = As<pb::Deployment>(message);
  return {LastPart(deployment.name()),
          StateText(deployment.state()),
          MeshText(deployment.mesh()),
          CountOf(deployment.workers_size()),
          CountOf(deployment.programs_size()),
          absl::StrCat(deployment.last_step()),
          AgeSince(deployment.create_time(), now),
          deployment.module_name().empty() ? kNone
                                           : LastPart(deployment.module_name()),
          absl::StrCat(deployment.epoch()),
          OrNone(deployment.state_reason())};
}

std::vector<Column> ProgramColumns() {
  return {{"NAME"},
          {"DEPLOYMENT"},
          {"LOSS"},
          {"INPUTS"},
          {"OUTPUTS"},
          {"AGE", kRight},
          {"CHANGES", kLeft, kWide}};
}

Table::Row ProgramRow(const Message& message, absl::Time now) {
  const auto& program = As<pb::Program>(message);
  const std::string parent =
      program.name().substr(0, program.name().find("/programs/"));
  return {LastPart(program.name()),
          LastPart(parent),
          program.has_loss() ? "yes" : "no",
          TypesText(program.inputs()),
          TypesText(program.outputs()),
          AgeSince(program.create_time(), now),
          OrNone(absl::StrJoin(program.changed_buffers(), ", "))};
}

std::vector<Column> StepColumns() {
  return {{"STEP", kRight},       {"DEPLOYMENT"},
          {"LOSS", kRight},       {"DURATION", kRight},
          {"RUN", kRight},        {"COLLECTIVES", kRight},
          {"COMMIT", kRight},     {"GRADIENT NORM", kRight, kWide},
          {"EPOCH", kLeft, kWide}};
}

Table::Row StepRow(const Message& message, absl::Time) {
  const auto& step = As<pb::StepResult>(message);
  const std::string parent = step.name().substr(0, step.name().find("/steps/"));
  return {absl::StrCat(step.number()),
          LastPart(parent),
          LossText(step),
          SecondsText(step.duration_seconds()),
          SecondsText(step.timing().run_seconds()),
          SecondsText(step.timing().collective_seconds()),
          SecondsText(step.timing().commit_call_seconds()),
          step.has_gradient_norm()
              ? absl::StrFormat("%.6g", step.gradient_norm())
              : kNone,
          absl::StrCat(step.epoch())};
}

std::vector<Column> OperationColumns() {
  return {
      {"NAME"},  {"KIND"},         {"RESOURCE"},     {"STATE"},
      {"PHASE"}, {"DONE", kRight}, {"TOOK", kRight}, {"ERROR", kLeft, kWide}};
}

Table::Row OperationRow(const Message& message, absl::Time now) {
  const auto& operation = As<pb::Operation>(message);
  return {LastPart(operation.name()),
          EnumText(pb::Operation::Kind_Name(operation.kind()), "KIND_"),
          operation.resource(),
          StateText(operation.state()),
          OrNone(operation.phase()),
          absl::StrFormat("%.0f%%", operation.percent()),
          DurationOf(operation, now),
          OrNone(operation.error().message())};
}

std::vector<Column> EventColumns() {
  return {{"LAST", kRight}, {"SEVERITY"}, {"REASON"},
          {"RESOURCE"},     {"MESSAGE"},  {"NAME", kLeft, kWide}};
}

Table::Row EventRow(const Message& message, absl::Time now) {
  const auto& event = As<pb::Event>(message);
  return {AgeSince(event.create_time(), now),
          EnumText(pb::Event::Severity_Name(event.severity()), "SEVERITY_"),
          event.reason(),
          event.resource(),
          event.message(),
          LastPart(event.name())};
}

}  // namespace shardplane
