#include "worker/worker_convert.h"

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/field_path.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/report.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"

namespace shardplane {

namespace pb = ::shardplane::v1;

namespace {

absl::StatusOr<RunMode> ToRunMode(const pb::RunRequest& message) {
  switch (message.mode()) {
    case pb::RunRequest::MODE_FORWARD:
      if (!message.gradient_norm()) return RunMode::kForward;
      return InvalidField("gradient_norm",
                          "expected false of a forward, got: true");
    case pb::RunRequest::MODE_TRAIN:
      return RunMode::kTrain;
    case pb::RunRequest::MODE_NORM:
      if (message.program().empty()) return RunMode::kNorm;
      return InvalidField("program",
                          absl::StrCat("expected none with MODE_NORM, got: \"",
                                       message.program(), "\""));
    default:
      return InvalidEnum("mode", "MODE_FORWARD, MODE_TRAIN or MODE_NORM",
                         message.mode());
  }
}

}  // namespace

GangCall ToGangCall(const pb::GangRef& message) {
  return {.deployment = message.deployment(),
          .epoch = message.epoch(),
          .incarnation = message.incarnation(),
          .request_id = message.request_id()};
}

absl::StatusOr<GangSpec> ToGangSpec(const pb::JoinGangRequest& message) {
  GangSpec spec{.deployment = message.gang().deployment(),
                .epoch = message.gang().epoch(),
                .rank = message.rank()};
  SP_ASSIGN_OR_RETURN(spec.mesh, FromProto(message.mesh(), "mesh"));
  if (spec.rank < 0 || spec.rank >= spec.mesh.size()) {
    return InvalidField(
        "rank", absl::StrCat("expected a rank of mesh ", spec.mesh.ToString(),
                             ", got: ", spec.rank));
  }
  if (message.timeout_ms() < 0) {
    return InvalidField("timeout_ms", absl::StrCat("expected 0 or more, got: ",
                                                   message.timeout_ms()));
  }
  if (message.timeout_ms() > 0) {
    spec.timeout = std::chrono::milliseconds(message.timeout_ms());
  }
  return spec;
}

absl::StatusOr<MaterializeSpec> ToMaterializeSpec(
    const pb::MaterializeRequest& message) {
  MaterializeSpec spec{.plan_mesh_dim = message.plan_mesh_dim(),
                       .seed = message.seed()};
  if (message.has_src_data_rank()) spec.src_data_rank = message.src_data_rank();
  for (int i = 0; i < message.parameters_size(); ++i) {
    const pb::MaterializeRequest::Source& source = message.parameters(i);
    const FieldPath root("");
    const FieldPath field = root.Element("parameters", i);
    ParameterSource parameter{.fqn = source.fqn(),
                              .requires_grad = source.requires_grad()};
    SP_ASSIGN_OR_RETURN(parameter.type,
                        FromProto(source.type(), field.Member("type")));
    SP_ASSIGN_OR_RETURN(parameter.spec,
                        FromProto(source.spec(), field.Member("spec")));
    if (source.has_initializer()) {
      SP_ASSIGN_OR_RETURN(
          parameter.initializer,
          FromProto(source.initializer(), field.Member("initializer")));
    }
    spec.parameters.push_back(std::move(parameter));
  }
  return spec;
}

std::string UploadKey(const std::string& id) {
  return absl::StrCat("upload:", id);
}

absl::StatusOr<GangRun> ToGangRun(pb::RunRequest message) {
  GangRun run{.step = message.step(),
              .traceparent = message.traceparent(),
              .spec = {.program = message.program(),
                       .accumulate = message.accumulate(),
                       .random_step = message.random_step(),
                       .gradient_norm = message.gradient_norm(),
                       .timeline = message.timeline(),
                       .timeline_by_operator = message.timeline()},
              .expected_hash = message.expected_hash()};
  SP_ASSIGN_OR_RETURN(run.spec.mode, ToRunMode(message));
  const FieldPath root("");
  for (int i = 0; i < message.inputs_size(); ++i) {
    SP_ASSIGN_OR_RETURN(TensorSource input,
                        FromProto(std::move(*message.mutable_inputs(i)),
                                  root.Element("inputs", i)));
    if (const auto* upload = std::get_if<UploadedTensor>(&input)) {
      run.spec.inputs.push_back(UploadKey(upload->id));
      continue;
    }
    std::string key = absl::StrCat("inline:", i);
    run.spec.inputs.push_back(key);
    run.inline_inputs.emplace_back(std::move(key),
                                   std::get<HostTensor>(std::move(input)));
  }
  return run;
}

absl::StatusOr<GangCommit> ToGangCommit(const pb::CommitRequest& message) {
  GangCommit commit{.step = message.step(),
                    .reset_optimizer = message.reset_optimizer(),
                    .abandon = message.abandon()};
  if (message.has_optimizer()) {
    SP_ASSIGN_OR_RETURN(commit.optimizer,
                        FromProto(message.optimizer(), "optimizer"));
  }
  if (message.has_clip_norm()) {
    SP_RETURN_IF_ERROR(CheckClipNorm(message.clip_norm(), "clip_norm"));
    commit.clip_norm = message.clip_norm();
  }
  if (message.has_load_state()) {
    LoadStateSpec load;
    for (const auto& entry : message.load_state().entries()) {
      load.entries.emplace_back(entry.fqn(), UploadKey(entry.upload()));
    }
    commit.load_state = std::move(load);
  }
  return commit;
}

absl::StatusOr<GangStep> ToGangStep(pb::StepsRequest::Step message) {
  if (message.run().mode() != pb::RunRequest::MODE_TRAIN) {
    return InvalidEnum("mode", "MODE_TRAIN in a step", message.run().mode());
  }
  GangStep step;
  SP_ASSIGN_OR_RETURN(step.run, ToGangRun(std::move(*message.mutable_run())));
  SP_ASSIGN_OR_RETURN(step.commit, ToGangCommit(message.commit()));
  if (step.commit.load_state.has_value() || step.commit.reset_optimizer ||
      step.commit.abandon) {
    return InvalidField("commit",
                        "expected an update; got: load_state, reset_optimizer "
                        "or abandon");
  }
  return step;
}

absl::StatusOr<TensorKey> ToTensorKey(const pb::TensorRef& message) {
  switch (message.kind_case()) {
    case pb::TensorRef::kParameter:
      return ParameterKey{message.parameter()};
    case pb::TensorRef::kGradient:
      return GradientKey{message.gradient()};
    case pb::TensorRef::kOutput:
      return OutputKey{message.output()};
    case pb::TensorRef::kInputGradient:
      return InputGradientKey{message.input_gradient()};
    case pb::TensorRef::KIND_NOT_SET:
      break;
  }
  return MissingOneof("tensor", "parameter, gradient, output, input_gradient");
}

namespace {

void AddSpans(
    const RunTimeline& timeline,
    google::protobuf::RepeatedPtrField<pb::RunResponse::Span>& spans) {
  for (const InstructionSpan& span : timeline.spans) {
    pb::RunResponse::Span& message = *spans.Add();
    message.set_instruction(span.instruction);
    message.set_begin_nanos(span.begin);
    message.set_duration_nanos(span.duration);
  }
}

}  // namespace

void FillResponse(RunResult result, pb::RunResponse& response) {
  *response.mutable_collectives() = CountsToProto(result.ran.counts);
  if (result.loss.has_value()) {
    *response.mutable_loss() = ToProto(*std::move(result.loss));
  }
  response.set_hash(result.ran.hash);
  response.set_gradient_norm(result.gradient_norm);
  response.set_seconds(result.seconds);
  response.set_collective_seconds(result.collective_seconds.total());
  response.set_peak_bytes(result.peak_bytes);
  response.set_begin_unix_nanos(result.timeline.begin_unix);
  AddSpans(result.timeline, *response.mutable_timeline());
}

void FillResponse(const StepTimeline& timeline,
                  pb::GetTimelineResponse& response) {
  response.set_received_unix_nanos(timeline.received_unix);
  response.set_begin_unix_nanos(timeline.run.begin_unix);
  AddSpans(timeline.run, *response.mutable_spans());
  response.set_run_nanos(timeline.run_nanos);
  response.set_agree_nanos(timeline.agree_nanos);
  response.set_update_nanos(timeline.update_nanos);
  response.set_traceparent(timeline.traceparent);
  response.set_program(timeline.program);
}

pb::StepsResponse::Step ToAnswer(uint64_t step,
                                 absl::StatusOr<StepOutcome> outcome) {
  pb::StepsResponse::Step answer;
  answer.set_step(step);
  if (!outcome.ok()) {
    *answer.mutable_status() = ToRpcStatus(outcome.status());
    return answer;
  }
  FillResponse(std::move(outcome->run), *answer.mutable_run());
  answer.set_commit_seconds(outcome->commit_seconds);
  return answer;
}

}  // namespace shardplane
