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

namespace shardplane {

namespace pb = ::shardplane::v1;

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

absl::StatusOr<GangRun> ToGangRun(const pb::RunRequest& message) {
  GangRun run{.step = message.step(),
              .spec = {.program = message.program(),
                       .accumulate = message.accumulate()},
              .expected_hash = message.expected_hash()};
  switch (message.mode()) {
    case pb::RunRequest::MODE_FORWARD:
      run.spec.mode = RunMode::kForward;
      break;
    case pb::RunRequest::MODE_TRAIN:
      run.spec.mode = RunMode::kTrain;
      break;
    default:
      return InvalidEnum("mode", "MODE_FORWARD or MODE_TRAIN", message.mode());
  }
  const FieldPath root("");
  for (int i = 0; i < message.inputs_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        TensorSource input,
        FromProto(message.inputs(i), root.Element("inputs", i)));
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
  if (message.has_load_state()) {
    LoadStateSpec load;
    for (const auto& entry : message.load_state().entries()) {
      load.entries.emplace_back(entry.fqn(), UploadKey(entry.upload()));
    }
    commit.load_state = std::move(load);
  }
  return commit;
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

void FillResponse(RunResult result, pb::RunResponse& response) {
  *response.mutable_collectives() = CountsToProto(result.ran.counts);
  if (result.loss.has_value()) {
    *response.mutable_loss() = ToProto(*std::move(result.loss));
  }
  response.set_hash(result.ran.hash);
  response.set_seconds(result.seconds);
}

}  // namespace shardplane
