#include "proto/convert/report.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

pb::Assignment::ParameterPlacement PlacementToProto(
    const ParameterPlacement& placement) {
  pb::Assignment::ParameterPlacement message;
  message.set_name(placement.name);
  *message.mutable_type() = ToProto(placement.type);
  *message.mutable_spec() = ToProto(placement.spec);
  message.set_text(ToString(placement.spec));
  return message;
}

void AssignmentToProto(const AssignmentRow& row, pb::Assignment* message) {
  message->set_fqn(row.fqn);
  message->set_module_type(row.module_type);
  message->set_style(row.style);
  message->set_pattern(row.pattern);
  for (const ParameterPlacement& placement : row.parameters) {
    *message->add_parameters() = PlacementToProto(placement);
  }
  message->set_input_layouts(row.input_layouts);
  message->set_output_layouts(row.output_layouts);
}

void MemoryToProto(const RankMemory& memory, pb::RankMemory* message) {
  message->set_rank(memory.rank);
  message->set_parameter_bytes(memory.parameter_bytes);
  message->set_gradient_bytes(memory.gradient_bytes);
  message->set_buffer_bytes(memory.buffer_bytes);
  message->set_peak_activation_bytes(memory.peak_activation_bytes);
  message->set_peak_run_bytes(memory.peak_run_bytes);
  for (const OptimizerStateBytes& state : memory.optimizer_state) {
    pb::OptimizerStateBytes* line = message->add_optimizer_state();
    line->set_optimizer(state.optimizer);
    line->set_bytes(state.bytes);
  }
}

void CollectiveToProto(const ModuleCollective& row,
                       pb::ModuleCollective* message) {
  message->set_fqn(row.fqn);
  message->set_phase(row.phase);
  message->set_kind(row.kind);
  message->set_mesh_dim(row.mesh_dim);
  message->set_count(row.count);
  message->set_bytes(row.bytes);
  message->set_why(row.why);
}

void FlopsToProto(const RankFlops& row, pb::RankFlops* message) {
  message->set_rank(row.rank);
  message->set_forward(row.flops.forward);
  message->set_backward(row.flops.backward);
}

absl::Status CheckNumber(int64_t number, const FieldPath& field) {
  return number >= 0 ? absl::OkStatus()
                     : InvalidField(field, absl::StrCat("expected a number "
                                                        ">= 0, got: ",
                                                        number));
}

absl::StatusOr<CollectiveCount> CountFromProto(
    const pb::CollectiveCount& message, const FieldPath& field) {
  if (message.phase().empty()) {
    return MissingField(field.Member("phase"));
  }
  if (message.kind().empty()) {
    return MissingField(field.Member("kind"));
  }
  SP_RETURN_IF_ERROR(CheckNumber(message.count(), field.Member("count")));
  SP_RETURN_IF_ERROR(CheckNumber(message.bytes(), field.Member("bytes")));
  return CollectiveCount{message.phase(), message.kind(), message.count(),
                         message.bytes()};
}

}  // namespace

v1::Diagnostic ToProto(const Diagnostic& diagnostic) {
  pb::Diagnostic message;
  message.set_severity(diagnostic.severity == Severity::kNote
                           ? pb::SEVERITY_NOTE
                           : pb::SEVERITY_WARNING);
  message.set_reason(diagnostic.reason);
  message.set_message(diagnostic.message);
  message.set_fqn(diagnostic.fqn);
  message.set_pattern(diagnostic.pattern);
  return message;
}

v1::CollectiveCount ToProto(const CollectiveCount& count) {
  pb::CollectiveCount message;
  message.set_phase(count.phase);
  message.set_kind(count.kind);
  message.set_count(count.count);
  message.set_bytes(count.bytes);
  return message;
}

google::protobuf::RepeatedPtrField<v1::CollectiveCount> CountsToProto(
    absl::Span<const CollectiveCount> counts) {
  google::protobuf::RepeatedPtrField<pb::CollectiveCount> messages;
  for (const CollectiveCount& count : counts) {
    *messages.Add() = ToProto(count);
  }
  return messages;
}

absl::StatusOr<std::vector<CollectiveCount>> CountsFromProto(
    const google::protobuf::RepeatedPtrField<v1::CollectiveCount>& messages,
    const FieldPath& field) {
  std::vector<CollectiveCount> counts;
  for (int i = 0; i < messages.size(); ++i) {
    SP_ASSIGN_OR_RETURN(CollectiveCount count,
                        CountFromProto(messages[i], field.Element("", i)));
    counts.push_back(std::move(count));
  }
  return counts;
}

v1::Report ToProto(const Report& report) {
  pb::Report message;
  for (const AssignmentRow& row : report.assignments) {
    AssignmentToProto(row, message.add_assignments());
  }
  for (const Diagnostic& diagnostic : report.diagnostics) {
    *message.add_diagnostics() = ToProto(diagnostic);
  }
  *message.mutable_collectives() = CountsToProto(report.collectives);
  for (const RankMemory& memory : report.memory) {
    MemoryToProto(memory, message.add_memory());
  }
  message.set_flops_per_rank(report.flops_per_rank);
  for (const ParameterPlacement& placement : report.parameters) {
    *message.add_parameters() = PlacementToProto(placement);
  }
  message.set_program_text(report.program_text);
  for (const ModuleCollective& row : report.module_collectives) {
    CollectiveToProto(row, message.add_module_collectives());
  }
  for (const RankFlops& row : report.flops) {
    FlopsToProto(row, message.add_flops());
  }
  return message;
}

}  // namespace shardplane
