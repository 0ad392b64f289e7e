#include "coordinator/worker_messages.h"

#include <utility>
#include <variant>

#include "common/errors.h"
#include "proto/convert/module.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/report.h"
#include "proto/convert/types.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

namespace {

struct TensorKeyToProto {
  pb::TensorRef ref;
  void operator()(const ParameterKey& key) { ref.set_parameter(key.fqn); }
  void operator()(const GradientKey& key) { ref.set_gradient(key.fqn); }
  void operator()(const OutputKey& key) { ref.set_output(key.index); }
  void operator()(const InputGradientKey& key) {
    ref.set_input_gradient(key.index);
  }
};

RunTimeline TimelineFromProto(
    int64_t begin_unix,
    const google::protobuf::RepeatedPtrField<pb::RunResponse::Span>& spans) {
  RunTimeline timeline{.begin_unix = begin_unix};
  for (const pb::RunResponse::Span& span : spans) {
    timeline.spans.push_back(
        {span.instruction(), span.begin_nanos(), span.duration_nanos()});
  }
  return timeline;
}

}  // namespace

pb::TensorRef ToProto(const TensorKey& key) {
  TensorKeyToProto to_proto;
  std::visit(to_proto, key);
  return std::move(to_proto.ref);
}

pb::GangRef ToProto(const GangRef& gang) {
  pb::GangRef message;
  message.set_deployment(ResourceName(gang.deployment));
  message.set_epoch(gang.epoch.value);
  message.set_incarnation(gang.incarnation.value);
  message.set_request_id(gang.request_id);
  return message;
}

pb::MaterializeRequest ToProto(const GangRef& gang,
                               const MaterializeCall& call) {
  pb::MaterializeRequest request;
  *request.mutable_gang() = ToProto(gang);
  for (const MaterializeCall::Source& source : call.parameters) {
    pb::MaterializeRequest::Source& message = *request.add_parameters();
    message.set_fqn(source.fqn);
    *message.mutable_type() = ToProto(source.type);
    *message.mutable_spec() = ToProto(source.spec);
    message.set_requires_grad(source.requires_grad);
    if (source.initializer.has_value()) {
      *message.mutable_initializer() = ToProto(*source.initializer);
    }
  }
  request.set_plan_mesh_dim(call.plan_mesh_dim);
  if (call.src_data_rank.has_value()) {
    request.set_src_data_rank(*call.src_data_rank);
  }
  request.set_seed(call.seed);
  return request;
}

pb::RunRequest ToProto(const GangRef& gang, const RunCall& call) {
  pb::RunRequest request;
  *request.mutable_gang() = ToProto(gang);
  request.set_step(call.step.value);
  request.set_program(call.program.value);
  static constexpr pb::RunRequest::Mode kModes[] = {
      pb::RunRequest::MODE_FORWARD, pb::RunRequest::MODE_TRAIN,
      pb::RunRequest::MODE_NORM};
  request.set_mode(kModes[static_cast<int>(call.mode)]);
  for (const TensorSource& input : call.inputs) {
    *request.add_inputs() =
        std::visit([](const auto& tensor) { return ToProto(tensor); }, input);
  }
  request.set_accumulate(call.accumulate);
  request.set_expected_hash(call.expected_hash);
  request.set_random_step(call.random_step.value);
  request.set_gradient_norm(call.gradient_norm);
  request.set_timeline(call.timeline);
  request.set_traceparent(call.traceparent);
  return request;
}

pb::CommitRequest ToProto(const GangRef& gang, const CommitCall& call) {
  pb::CommitRequest request;
  *request.mutable_gang() = ToProto(gang);
  request.set_step(call.step.value);
  if (call.optimizer.has_value()) {
    *request.mutable_optimizer() = ToProto(*call.optimizer);
  }
  if (call.clip_norm.has_value()) request.set_clip_norm(*call.clip_norm);
  for (const LoadEntry& entry : call.load_state) {
    auto& message = *request.mutable_load_state()->add_entries();
    message.set_fqn(entry.fqn);
    message.set_upload(entry.upload);
  }
  request.set_reset_optimizer(call.reset_optimizer);
  request.set_abandon(call.abandon);
  return request;
}

absl::StatusOr<RunOutcome> OutcomeFromProto(const pb::RunResponse& response) {
  RunOutcome outcome;
  SP_ASSIGN_OR_RETURN(outcome.collectives,
                      CountsFromProto(response.collectives(), "collectives"));
  if (response.has_loss()) {
    SP_ASSIGN_OR_RETURN(TensorSource loss, FromProto(response.loss(), "loss"));
    if (!std::holds_alternative<HostTensor>(loss)) {
      return absl::InternalError("loss: expected it inline, got: an upload");
    }
    outcome.loss = std::get<HostTensor>(std::move(loss));
  }
  outcome.gradient_norm = response.gradient_norm();
  outcome.seconds = response.seconds();
  outcome.collective_seconds = response.collective_seconds();
  outcome.peak_bytes = response.peak_bytes();
  outcome.timeline =
      TimelineFromProto(response.begin_unix_nanos(), response.timeline());
  return outcome;
}

StepRecording RecordingFromProto(const pb::GetTimelineResponse& response) {
  return {
      .received_unix = response.received_unix_nanos(),
      .run = TimelineFromProto(response.begin_unix_nanos(), response.spans()),
      .run_nanos = response.run_nanos(),
      .agree_nanos = response.agree_nanos(),
      .update_nanos = response.update_nanos(),
      .program = ProgramId{response.program()}};
}

}  // namespace shardplane
