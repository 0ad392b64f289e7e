// Tensors up and down. None stays here.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "proto/tensor_stream.h"

namespace shardplane {
namespace {

constexpr int kMaxUploadIdBytes = 256;

absl::Status BadField(const std::string& field, const std::string& reason,
                      const std::string& expected, const std::string& got) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected ", expected, ", got: ", got),
                   {.reason = reason,
                    .metadata = {{"field", field}, {"expected", expected}}});
}

absl::Status CheckUploadId(const std::string& id) {
  if (!id.empty() && id.size() <= kMaxUploadIdBytes) {
    return absl::OkStatus();
  }
  return BadField("header.upload", "UPLOAD_ID_INVALID",
                  absl::StrCat("1 to ", kMaxUploadIdBytes, " bytes"),
                  absl::StrCat(id.size(), " bytes"));
}

// Where the bytes of one tensor come from, and how it lies.
struct TensorPlace {
  TensorKey key;
  TensorType type;
  DTensorSpec spec;
};

absl::StatusOr<TensorPlace> PlaceOf(Deployment& deployment,
                                    const ParameterKey& key) {
  SP_ASSIGN_OR_RETURN(const Deployment::CanonicalParameter found,
                      deployment.FindParameter(key.fqn, "tensor.parameter"));
  return TensorPlace{ParameterKey{found.parameter->fqn}, found.parameter->type,
                     *found.spec};
}

absl::StatusOr<TensorPlace> PlaceOf(Deployment& deployment,
                                    const GradientKey& key) {
  SP_ASSIGN_OR_RETURN(const Deployment::CanonicalParameter found,
                      deployment.FindParameter(key.fqn, "tensor.gradient"));
  if (!found.parameter->requires_grad) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat("tensor.gradient: expected a parameter with "
                     "requires_grad, got: \"",
                     key.fqn, "\""),
        {.reason = "GRADIENT_NOT_FOUND",
         .metadata = {{"field", "tensor.gradient"},
                      {"fqn", key.fqn},
                      {"resource", absl::StrCat(ResourceName(deployment.id),
                                                "/gradients/", key.fqn)}}});
  }
  return TensorPlace{GradientKey{found.parameter->fqn}, found.parameter->type,
                     *found.spec};
}

absl::StatusOr<std::shared_ptr<const DeploymentProgram>> LastRun(
    Deployment& deployment, const std::string& field) {
  absl::MutexLock lock(&deployment.mu);
  if (deployment.last_run == nullptr) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(field, ": expected a call before, got: none on ",
                     ResourceName(deployment.id)),
        {.reason = "NOTHING_HAS_RUN",
         .metadata = {{"field", field},
                      {"subject", ResourceName(deployment.id)}}});
  }
  return deployment.last_run;
}

absl::Status CheckIndex(const std::string& field, int index, size_t size) {
  return index >= 0 && index < static_cast<int>(size)
             ? absl::OkStatus()
             : BadField(field, "INDEX_OUT_OF_RANGE",
                        absl::StrCat("an index below ", size),
                        absl::StrCat(index));
}

absl::StatusOr<TensorPlace> PlaceOf(Deployment& deployment,
                                    const OutputKey& key) {
  SP_ASSIGN_OR_RETURN(const auto run, LastRun(deployment, "tensor.output"));
  SP_RETURN_IF_ERROR(
      CheckIndex("tensor.output", key.index, run->program.outputs.size()));
  const Value& value = run->program.values[run->program.outputs[key.index]];
  return TensorPlace{key, value.type, value.spec};
}

absl::StatusOr<TensorPlace> PlaceOf(Deployment& deployment,
                                    const InputGradientKey& key) {
  const std::string field = "tensor.input_gradient";
  SP_ASSIGN_OR_RETURN(const auto run, LastRun(deployment, field));
  SP_RETURN_IF_ERROR(CheckIndex(field, key.index, run->program.inputs.size()));
  const InputBinding& input = run->program.inputs[key.index];
  if (input.gradient < 0) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat(field,
                     ": expected an input with requires_grad of a "
                     "program with a loss, got: input ",
                     key.index),
        {.reason = "GRADIENT_NOT_FOUND",
         .metadata = {{"field", field},
                      {"resource", absl::StrCat(ResourceName(deployment.id),
                                                "/inputs/", key.index)}}});
  }
  const Value& value = run->program.values[input.gradient];
  return TensorPlace{key, value.type, value.spec};
}

}  // namespace

// Writes each chunk to all its workers as it comes.
class RelayedUpload : public UploadSession {
 public:
  RelayedUpload(Coordinator* coordinator, Coordinator::DeploymentPtr deployment,
                UploadCall call, std::vector<int> ranks,
                std::vector<std::unique_ptr<TensorSink>> sinks)
      : coordinator_(coordinator),
        deployment_(std::move(deployment)),
        call_(std::move(call)),
        ranks_(std::move(ranks)),
        sinks_(std::move(sinks)),
        checker_(call_.type) {}

  absl::Status Write(const v1::TensorData& chunk) override {
    SP_RETURN_IF_ERROR(checker_.Add(chunk));
    if (chunk.last()) {
      crc32_ = chunk.crc32();
    }
    bool written = true;
    for (const auto& sink : sinks_) {
      written &= sink->Write(chunk);
    }
    return written ? absl::OkStatus() : FinishSinks();
  }

  absl::StatusOr<int64_t> Finish() override {
    SP_RETURN_IF_ERROR(checker_.Finish());
    SP_RETURN_IF_ERROR(FinishSinks());
    absl::MutexLock lock(&deployment_->mu);
    if (call_.parameter.has_value()) {
      deployment_->uploads.AddParameter(*call_.parameter, ranks_);
    } else {
      SP_RETURN_IF_ERROR(
          deployment_->uploads.Add(call_.upload, call_.type, crc32_));
    }
    return checker_.received_bytes();
  }

 private:
  absl::Status FinishSinks() {
    std::vector<absl::Status> statuses;
    for (const auto& sink : sinks_) {
      statuses.push_back(sink->Finish());
    }
    sinks_.clear();
    const std::optional<CallFailure> failure =
        deployment_->gang->Judge(ranks_, statuses);
    return failure.has_value()
               ? coordinator_->HandleFailure(deployment_, *failure)
               : absl::OkStatus();
  }

  Coordinator* const coordinator_;
  // Shared with the coordinator: the deployment may be deleted meanwhile.
  const Coordinator::DeploymentPtr deployment_;
  const UploadCall call_;
  const std::vector<int> ranks_;
  std::vector<std::unique_ptr<TensorSink>> sinks_;
  TensorStreamChecker checker_;
  uint32_t crc32_ = 0;
};

absl::Status Coordinator::CheckParameterUpload(Deployment& deployment,
                                               UploadCall* call) {
  SP_ASSIGN_OR_RETURN(
      const Deployment::CanonicalParameter found,
      deployment.FindParameter(*call->parameter, "header.parameter"));
  if (found.parameter->initializer.has_value()) {
    return BadField("header.parameter", "PARAMETER_IS_META",
                    "a parameter with data (it is initialised by the workers)",
                    absl::StrCat("\"", *call->parameter, "\""));
  }
  if (found.parameter->type != call->type) {
    return WithMetadata(
        BadField("header.type", "TENSOR_TYPE_MISMATCH",
                 absl::StrCat(ToString(found.parameter->type), " for \"",
                              *call->parameter, "\""),
                 ToString(call->type)),
        "fqn", *call->parameter);
  }
  call->parameter = found.parameter->fqn;
  absl::MutexLock lock(&deployment.mu);
  return deployment.state.CheckMaterializable();
}

absl::StatusOr<std::unique_ptr<UploadSession>> Coordinator::Upload(
    const UploadCall& call_in) {
  UploadCall call = call_in;
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(call.deployment));
  {
    absl::MutexLock lock(&deployment->mu);
    SP_RETURN_IF_ERROR(deployment->state.CheckEpoch(call.epoch));
    SP_RETURN_IF_ERROR(deployment->state.CheckAlive("upload"));
  }
  std::vector<int> ranks;
  std::string key;
  if (call.parameter.has_value()) {
    SP_RETURN_IF_ERROR(CheckParameterUpload(*deployment, &call));
    SP_ASSIGN_OR_RETURN(ranks, deployment->SourceRanks(call.rank));
    key = absl::StrCat("parameter:", *call.parameter);
  } else {
    SP_RETURN_IF_ERROR(CheckUploadId(call.upload));
    for (int rank = 0; rank < deployment->gang->size(); ++rank) {
      ranks.push_back(rank);
    }
    key = absl::StrCat("upload:", call.upload);
  }
  std::vector<std::unique_ptr<TensorSink>> sinks = deployment->gang->Stage(
      Spec(options_.upload_timeout), ranks, key, call.type);
  return std::make_unique<RelayedUpload>(this, deployment, std::move(call),
                                         std::move(ranks), std::move(sinks));
}

absl::StatusOr<HostTensor> Coordinator::ReadGlobal(
    const DeploymentPtr& deployment, const TensorKey& key,
    const TensorType& type, const DTensorSpec& spec) {
  const DeviceMesh& mesh = deployment->spec->mesh;
  std::vector<LocalTensor> shards;
  const std::optional<CallFailure> failure = deployment->gang->Read(
      Spec(options_.run_timeout), RanksToAssemble(spec, mesh), key, &shards);
  if (failure.has_value()) {
    return HandleFailure(deployment, *failure);
  }
  std::vector<HostTensor> tensors;
  for (LocalTensor& shard : shards) {
    tensors.push_back(std::move(shard.local));
  }
  return AssembleGlobal(type, spec, mesh, tensors);
}

absl::StatusOr<DownloadedTensor> Coordinator::Download(
    const DownloadCall& call, const CallContext& context) {
  SP_ASSIGN_OR_RETURN(const Admitted admitted,
                      Admit(call.deployment, call.epoch, context));
  Deployment& deployment = *admitted.deployment;
  {
    absl::MutexLock lock(&deployment.mu);
    SP_RETURN_IF_ERROR(deployment.state.CheckReady("download"));
  }
  SP_ASSIGN_OR_RETURN(
      const TensorPlace place,
      std::visit([&](const auto& key) { return PlaceOf(deployment, key); },
                 call.tensor));
  if (!call.rank.has_value()) {
    SP_ASSIGN_OR_RETURN(
        HostTensor tensor,
        ReadGlobal(admitted.deployment, place.key, place.type, place.spec));
    return DownloadedTensor{std::move(tensor), place.spec};
  }
  SP_RETURN_IF_ERROR(CheckIndex("rank", *call.rank, deployment.gang->size()));
  std::vector<LocalTensor> shards;
  const std::optional<CallFailure> failure = deployment.gang->Read(
      Spec(options_.run_timeout), {*call.rank}, place.key, &shards);
  if (failure.has_value()) {
    return HandleFailure(admitted.deployment, *failure);
  }
  return DownloadedTensor{std::move(shards[0].local), shards[0].spec};
}

}  // namespace shardplane
