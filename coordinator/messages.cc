#include "coordinator/messages.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/deterministic.h"
#include "coordinator/digest.h"
#include "proto/convert/data_parallel.h"
#include "proto/convert/module.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/plan.h"
#include "proto/convert/program.h"
#include "proto/convert/report.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

// The module itself, or the name of one.
absl::Status ModuleFromProto(const pb::Deployment& message,
                             DeploymentSpec* spec) {
  if (message.has_module() && !message.module_name().empty()) {
    return InvalidField("deployment.module_name",
                        "expected either module or module_name, got: both");
  }
  if (message.has_module()) {
    SP_ASSIGN_OR_RETURN(spec->module,
                        FromProto(message.module(), "deployment.module"));
    return absl::OkStatus();
  }
  if (message.module_name().empty()) {
    return MissingOneof("deployment.module", "module and module_name");
  }
  SP_ASSIGN_OR_RETURN(
      spec->module_id,
      ParseModuleName(message.module_name(), "deployment.module_name"));
  return absl::OkStatus();
}

absl::StatusOr<DeploymentSpec> SpecFromProto(const pb::Deployment& message) {
  DeploymentSpec spec;
  SP_RETURN_IF_ERROR(ModuleFromProto(message, &spec));
  if (!message.has_mesh()) {
    return MissingField("deployment.mesh");
  }
  SP_ASSIGN_OR_RETURN(spec.mesh, FromProto(message.mesh(), "deployment.mesh"));
  if (message.has_plan()) {
    SP_ASSIGN_OR_RETURN(spec.plan,
                        FromProto(message.plan(), "deployment.plan"));
  }
  spec.plan_mesh_dim = message.plan_mesh_dim();
  SP_ASSIGN_OR_RETURN(
      spec.data_parallel,
      FromProto(message.data_parallel(), "deployment", "data_parallel"));
  if (message.has_src_data_rank()) {
    spec.src_data_rank = message.src_data_rank();
  }
  spec.seed = message.seed();
  spec.strict = message.strict();
  if (message.has_overlap()) {
    spec.overlap = {.prefetch = message.overlap().prefetch(),
                    .gradients = message.overlap().gradients(),
                    .input_gradients = message.overlap().input_gradients(),
                    .chunks = message.overlap().chunks()};
  }
  if (message.has_unit_bytes()) spec.unit_bytes = message.unit_bytes();
  spec.recompute.assign(message.recompute().begin(), message.recompute().end());
  if (message.has_link_costs()) {
    spec.link_costs = {.latency_us = message.link_costs().latency_us(),
                       .us_per_mib = message.link_costs().us_per_mib(),
                       .beside = message.link_costs().beside()};
    if (absl::Status status = CheckLinkCosts(*spec.link_costs); !status.ok()) {
      return WithMetadata(status, "field", "deployment.link_costs");
    }
  }
  spec.labels.insert(message.labels().begin(), message.labels().end());
  return spec;
}

// The bytes of messages that are moved here are not copied.
absl::StatusOr<std::vector<TensorSource>> SourcesFromProto(
    google::protobuf::RepeatedPtrField<pb::Tensor> messages,
    const FieldPath& parent, const char* name) {
  std::vector<TensorSource> sources;
  sources.reserve(messages.size());
  for (int i = 0; i < messages.size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        sources.emplace_back(),
        FromProto(std::move(messages[i]), parent.Element(name, i)));
  }
  return sources;
}

absl::StatusOr<TrainAction> TrainFromProto(pb::StepRequest::Train message) {
  TrainAction action;
  const FieldPath field("train");
  SP_ASSIGN_OR_RETURN(action.program,
                      ParseProgramName(message.program(), "train.program"));
  SP_ASSIGN_OR_RETURN(
      action.inputs,
      SourcesFromProto(std::move(*message.mutable_inputs()), field, "inputs"));
  SP_ASSIGN_OR_RETURN(action.targets,
                      SourcesFromProto(std::move(*message.mutable_targets()),
                                       field, "targets"));
  if (message.has_optimizer()) {
    SP_ASSIGN_OR_RETURN(action.optimizer,
                        FromProto(message.optimizer(), "train.optimizer"));
  }
  action.accumulate = message.accumulate();
  if (message.has_clip_norm()) {
    SP_RETURN_IF_ERROR(CheckClipNorm(message.clip_norm(), "train.clip_norm"));
    if (!message.has_optimizer()) {
      return InvalidField("train.clip_norm",
                          "expected an optimizer beside it, got: none");
    }
    action.clip_norm = message.clip_norm();
  }
  action.timeline = message.timeline();
  return action;
}

absl::StatusOr<UpdateAction> UpdateFromProto(
    const pb::StepRequest::Update& message) {
  if (!message.has_optimizer()) {
    return MissingField("update.optimizer");
  }
  UpdateAction action;
  SP_ASSIGN_OR_RETURN(action.optimizer,
                      FromProto(message.optimizer(), "update.optimizer"));
  if (message.has_clip_norm()) {
    SP_RETURN_IF_ERROR(CheckClipNorm(message.clip_norm(), "update.clip_norm"));
    action.clip_norm = message.clip_norm();
  }
  return action;
}

absl::StatusOr<StepAction> ActionFromProto(pb::StepRequest& request) {
  switch (request.action_case()) {
    case pb::StepRequest::kTrain:
      return TrainFromProto(std::move(*request.mutable_train()));
    case pb::StepRequest::kUpdate:
      return UpdateFromProto(request.update());
    case pb::StepRequest::kLoadState: {
      LoadStateAction action;
      for (const auto& entry : request.load_state().entries()) {
        action.entries.push_back({entry.fqn(), entry.upload()});
      }
      if (action.entries.empty()) {
        return MissingField("load_state.entries");
      }
      return action;
    }
    case pb::StepRequest::kResetOptimizer:
      return ResetOptimizerAction{};
    case pb::StepRequest::ACTION_NOT_SET:
      break;
  }
  return MissingField("action");
}

absl::StatusOr<TensorKey> KeyFromProto(const pb::TensorRef& ref) {
  switch (ref.kind_case()) {
    case pb::TensorRef::kParameter:
      return ParameterKey{ref.parameter()};
    case pb::TensorRef::kGradient:
      return GradientKey{ref.gradient()};
    case pb::TensorRef::kOutput:
      return OutputKey{ref.output()};
    case pb::TensorRef::kInputGradient:
      return InputGradientKey{ref.input_gradient()};
    case pb::TensorRef::KIND_NOT_SET:
      break;
  }
  return MissingField("tensor");
}

pb::Deployment::State ToProto(DeploymentPhase phase) {
  static constexpr pb::Deployment::State kStates[] = {
      pb::Deployment::STATE_UNSPECIFIED,   pb::Deployment::STATE_FORMING,
      pb::Deployment::STATE_AWAITING_DATA, pb::Deployment::STATE_MATERIALIZING,
      pb::Deployment::STATE_READY,         pb::Deployment::STATE_FAILED,
      pb::Deployment::STATE_DELETED};
  return kStates[static_cast<int>(phase)];
}

void SetSpec(const DeploymentInfo& info, DeploymentView view,
             pb::Deployment* message) {
  const DeploymentSpec& spec = *info.spec;
  if (view == DeploymentView::kFull) {
    *message->mutable_module() = shardplane::ToProto(spec.module);
  }
  if (spec.module_id.has_value()) {
    message->set_module_name(ResourceName(*spec.module_id));
  }
  *message->mutable_mesh() = shardplane::ToProto(spec.mesh);
  if (spec.plan.has_value()) {
    *message->mutable_plan() = shardplane::ToProto(*spec.plan);
  }
  message->set_plan_mesh_dim(info.plan_mesh_dim);
  for (const DataParallel& item : spec.data_parallel) {
    *message->add_data_parallel() = shardplane::ToProto(item);
  }
  if (spec.src_data_rank.has_value()) {
    message->set_src_data_rank(*spec.src_data_rank);
  }
  message->set_seed(spec.seed);
  message->set_strict(spec.strict);
  message->mutable_overlap()->set_prefetch(spec.overlap.prefetch);
  message->mutable_overlap()->set_gradients(spec.overlap.gradients);
  message->mutable_overlap()->set_input_gradients(spec.overlap.input_gradients);
  message->mutable_overlap()->set_chunks(spec.overlap.chunks);
  message->set_unit_bytes(spec.unit_bytes);
  message->mutable_recompute()->Assign(spec.recompute.begin(),
                                       spec.recompute.end());
  if (spec.link_costs.has_value()) {
    pb::LinkCosts* costs = message->mutable_link_costs();
    costs->set_latency_us(spec.link_costs->latency_us);
    costs->set_us_per_mib(spec.link_costs->us_per_mib);
    costs->set_beside(spec.link_costs->beside);
  }
  for (const auto& [key, value] : spec.labels) {
    (*message->mutable_labels())[key] = value;
  }
}

pb::OutputSpec SpecOf(const ShardedProgram& program, ValueId id) {
  return shardplane::ToProto(program.values[id].type, program.values[id].spec);
}

}  // namespace

void SetTime(absl::Time time, google::protobuf::Timestamp* message) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  message->set_seconds(seconds);
  message->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

absl::Status CheckResourceId(absl::string_view id, const FieldPath& field) {
  if (IsResourceId(id)) {
    return absl::OkStatus();
  }
  return InvalidField(
      field, absl::StrCat("expected a lower-case letter, then at most 62 "
                          "letters, digits and '-', got: \"",
                          id, "\""));
}

absl::StatusOr<CreateCall> CreateCallFromProto(
    const pb::CreateDeploymentRequest& request) {
  CreateCall call;
  SP_ASSIGN_OR_RETURN(call.spec, SpecFromProto(request.deployment()));
  if (request.has_signature()) {
    SP_ASSIGN_OR_RETURN(call.signature,
                        SignatureSpecFromProto(request.signature()));
  }
  if (!request.deployment_id().empty()) {
    SP_RETURN_IF_ERROR(
        CheckResourceId(request.deployment_id(), "deployment_id"));
    call.id = DeploymentId{request.deployment_id()};
  }
  call.validate_only = request.validate_only();
  return call;
}

absl::StatusOr<SignatureSpec> SignatureSpecFromProto(
    const pb::ProgramSignature& signature) {
  SignatureSpec spec;
  SP_ASSIGN_OR_RETURN(spec.signature, FromProto(signature, "signature"));
  if (signature.has_module()) {
    SP_ASSIGN_OR_RETURN(spec.module,
                        FromProto(signature.module(), "signature.module"));
  }
  return spec;
}

absl::StatusOr<ForwardCall> ForwardCallFromProto(
    const pb::ForwardRequest& request) {
  ForwardCall call;
  SP_ASSIGN_OR_RETURN(call.deployment,
                      ParseDeploymentName(request.deployment(), "deployment"));
  SP_ASSIGN_OR_RETURN(call.program,
                      ParseProgramName(request.program(), "program"));
  call.epoch = GangEpoch{request.epoch()};
  SP_ASSIGN_OR_RETURN(call.inputs,
                      SourcesFromProto(request.inputs(), "", "inputs"));
  return call;
}

absl::StatusOr<StepCall> StepCallFromProto(pb::StepRequest request,
                                           std::string digest) {
  StepCall call;
  SP_ASSIGN_OR_RETURN(call.deployment,
                      ParseDeploymentName(request.deployment(), "deployment"));
  call.number = StepNumber{request.step()};
  call.epoch = GangEpoch{request.epoch()};
  SP_ASSIGN_OR_RETURN(call.action, ActionFromProto(request));
  call.digest = std::move(digest);
  return call;
}

absl::StatusOr<UploadCall> UploadCallFromProto(
    const pb::UploadTensorRequest::Header& header) {
  UploadCall call;
  SP_ASSIGN_OR_RETURN(
      call.deployment,
      ParseDeploymentName(header.deployment(), "header.deployment"));
  call.epoch = GangEpoch{header.epoch()};
  if (!header.has_type()) {
    return MissingField("header.type");
  }
  SP_ASSIGN_OR_RETURN(call.type, FromProto(header.type(), "header.type"));
  if (header.destination_case() ==
      pb::UploadTensorRequest::Header::DESTINATION_NOT_SET) {
    return MissingField("header.destination");
  }
  if (header.has_parameter()) {
    call.parameter = header.parameter();
  }
  call.upload = header.upload();
  if (header.has_rank()) {
    call.rank = header.rank();
  }
  return call;
}

absl::StatusOr<DownloadCall> DownloadCallFromProto(
    const pb::DownloadTensorRequest& request) {
  DownloadCall call;
  SP_ASSIGN_OR_RETURN(call.deployment,
                      ParseDeploymentName(request.deployment(), "deployment"));
  call.epoch = GangEpoch{request.epoch()};
  SP_ASSIGN_OR_RETURN(call.tensor, KeyFromProto(request.tensor()));
  if (request.has_rank()) {
    call.rank = request.rank();
  }
  return call;
}

pb::Deployment ToProto(const DeploymentInfo& info, DeploymentView view) {
  pb::Deployment message;
  const bool made = !info.uid.empty();  // else a dry run
  if (made || !info.id.value.empty()) {
    message.set_name(ResourceName(info.id));
  }
  if (made) {
    message.set_uid(info.uid);
    message.set_etag(info.etag);
    SetTime(info.create_time, message.mutable_create_time());
    SetTime(info.update_time, message.mutable_update_time());
    message.set_state(ToProto(info.phase));
    message.set_state_reason(info.reason);
  }
  SetSpec(info, view, &message);
  if (view != DeploymentView::kBasic) {
    *message.mutable_report() = shardplane::ToProto(*info.report);
  }
  message.set_last_step(info.last_step.value);
  if (!info.operation.value.empty()) {
    message.set_operation(ResourceName(info.operation));
  }
  message.set_epoch(info.epoch.value);
  for (const WorkerId& worker : info.workers) {
    message.add_workers(ResourceName(worker));
  }
  for (const ProgramId& program : info.programs) {
    message.add_programs(ResourceName(info.id, program));
  }
  return message;
}

pb::Program ToProto(const DeploymentProgram& program, ProgramView view) {
  pb::Program message;
  message.set_name(ResourceName(program.deployment, program.id));
  message.set_uid(program.uid);
  SetTime(program.create_time, message.mutable_create_time());
  for (const ValueId output : program.program.outputs) {
    *message.add_outputs() = SpecOf(program.program, output);
  }
  for (const InputBinding& input : program.program.inputs) {
    *message.add_inputs() = SpecOf(program.program, input.value);
  }
  message.set_has_loss(program.program.loss >= 0);
  for (const ParameterBinding& binding : program.program.parameters) {
    if (binding.update >= 0) message.add_changed_buffers(binding.fqn);
  }
  if (view == ProgramView::kFull) {
    *message.mutable_report() = shardplane::ToProto(program.report);
  }
  return message;
}

pb::ForwardResponse ToProto(ForwardAnswer answer) {
  pb::ForwardResponse message;
  for (ForwardOutput& output : answer.outputs) {
    pb::OutputTensor& tensor = *message.add_outputs();
    *tensor.mutable_spec() = shardplane::ToProto(output.type, output.spec);
    if (output.bytes.has_value()) {
      tensor.set_inline_(*std::move(output.bytes));
    }
  }
  *message.mutable_collectives() = CountsToProto(answer.collectives);
  for (const int64_t bytes : answer.peak_run_bytes) {
    message.add_peak_run_bytes(bytes);
  }
  return message;
}

pb::Timeline ToProto(const Timeline& timeline) {
  pb::Timeline message;
  message.set_begin_unix_nanos(timeline.begin_unix);
  for (const auto& [when, what] : timeline.spans) {
    pb::Timeline::Span& span = *message.add_spans();
    span.set_instruction(when.instruction);
    span.set_kind(static_cast<pb::Timeline::Kind>(what.kind));
    span.set_name(what.name);
    span.set_module(what.module);
    span.set_begin_nanos(when.begin);
    span.set_duration_nanos(when.duration);
    span.set_bytes(what.bytes);
    if (what.started >= 0) span.set_started(what.started);
  }
  return message;
}

pb::StepResult ToProto(const DeploymentId& deployment,
                       const StepAnswer& answer) {
  pb::StepResult message;
  message.set_name(ResourceName(deployment, answer.number));
  message.set_number(answer.number.value);
  message.set_epoch(answer.epoch.value);
  if (answer.loss.has_value()) {
    *message.mutable_loss() = shardplane::ToProto(*answer.loss);
  }
  *message.mutable_collectives() = CountsToProto(answer.collectives);
  message.set_duration_seconds(answer.seconds);
  if (answer.gradient_norm.has_value()) {
    message.set_gradient_norm(*answer.gradient_norm);
  }
  pb::StepTiming& timing = *message.mutable_timing();
  timing.set_run_seconds(answer.timing.run);
  timing.set_collective_seconds(answer.timing.collectives);
  timing.set_commit_call_seconds(answer.timing.commit_call);
  for (const int64_t bytes : answer.peak_run_bytes) {
    message.add_peak_run_bytes(bytes);
  }
  for (const Timeline& timeline : answer.timelines) {
    *message.add_timelines() = ToProto(timeline);
  }
  return message;
}

pb::WorkerNode ToProto(const WorkerRecord& worker) {
  pb::WorkerNode message;
  message.set_name(ResourceName(worker.id));
  message.set_uid(absl::StrCat(worker.id.value, "-", worker.incarnation.value));
  message.set_address(worker.address);
  message.set_state(static_cast<pb::WorkerNode::State>(worker.state));
  message.set_state_reason(worker.state_reason);
  SetTime(worker.state_time, message.mutable_state_time());
  message.set_incarnation(worker.incarnation.value);
  message.set_device(worker.device);
  if (worker.seat.has_value()) {
    message.set_deployment(ResourceName(worker.seat->deployment));
    message.set_rank(worker.seat->rank);
  }
  message.set_http_address(worker.http_address);
  return message;
}

std::string DigestOf(const pb::StepRequest& request) {
  Digester digester;
  digester.Add(absl::StrCat(request.deployment(), "\n", request.step(), "\n",
                            request.action_case(), "\n"));
  switch (request.action_case()) {
    case pb::StepRequest::kTrain:
      AddDeterministic(request.train(), &digester);
      break;
    case pb::StepRequest::kUpdate:
      AddDeterministic(request.update(), &digester);
      break;
    case pb::StepRequest::kLoadState:
      AddDeterministic(request.load_state(), &digester);
      break;
    case pb::StepRequest::kResetOptimizer:
      AddDeterministic(request.reset_optimizer(), &digester);
      break;
    case pb::StepRequest::ACTION_NOT_SET:
      break;
  }
  return digester.Finish();
}

}  // namespace shardplane
