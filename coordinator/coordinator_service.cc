#include "coordinator/coordinator_service.h"

#include <utility>

#include "coordinator/messages.h"
#include "coordinator/page.h"
#include "coordinator/service_calls.h"
#include "proto/convert/types.h"
#include "proto/tensor_stream.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

// Relays what the client sends, from the second message on.
absl::StatusOr<std::string> Relay(
    UploadSession& session, StreamWatch::Stream& watched,
    grpc::ServerReader<pb::UploadTensorRequest>* reader,
    grpc::ServerContext* context) {
  pb::UploadTensorRequest message;
  while (reader->Read(&message)) {
    watched.Touch();
    SP_RETURN_IF_ERROR(CheckIsChunk(message));
    SP_RETURN_IF_ERROR(session.Write(message.chunk()));
  }
  if (context->IsCancelled()) {
    return absl::CancelledError(
        "the client went away in the middle of an "
        "upload; nothing of it is kept");
  }
  SP_ASSIGN_OR_RETURN(const int64_t bytes, session.Finish());
  pb::UploadTensorResponse response;
  response.set_bytes(bytes);
  return response.SerializeAsString();
}

}  // namespace

grpc::Status CoordinatorService::CreateDeployment(
    grpc::ServerContext* context, const pb::CreateDeploymentRequest* request,
    pb::Deployment* response) {
  return ReplyOnce(
      log_, context, *request, "CreateDeployment", response,
      [&](const CallContext& call_context) -> absl::StatusOr<pb::Deployment> {
        SP_ASSIGN_OR_RETURN(CreateCall call, CreateCallFromProto(*request));
        SP_ASSIGN_OR_RETURN(
            const DeploymentInfo info,
            coordinator_->CreateDeployment(std::move(call), call_context));
        return ToProto(info, DeploymentView::kWithoutModule);
      });
}

grpc::Status CoordinatorService::GetDeployment(
    grpc::ServerContext*, const pb::GetDeploymentRequest* request,
    pb::Deployment* response) {
  const auto get = [&]() -> absl::StatusOr<pb::Deployment> {
    SP_ASSIGN_OR_RETURN(const DeploymentId id,
                        ParseDeploymentName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const DeploymentInfo info,
                        coordinator_->GetDeployment(id));
    return ToProto(info, DeploymentView::kFull);
  };
  return Reply(get(), response);
}

grpc::Status CoordinatorService::ListDeployments(
    grpc::ServerContext*, const pb::ListDeploymentsRequest* request,
    pb::ListDeploymentsResponse* response) {
  const absl::StatusOr<PageRequest> page =
      ParsePage(request->page_size(), request->page_token(), "deployments");
  if (!page.ok()) {
    return ToGrpcStatus(page.status());
  }
  response->set_next_page_token(AddPage(
      coordinator_->ListDeployments(), *page, "deployments", IdOf,
      [response](const DeploymentInfo& info) {
        *response->add_deployments() = ToProto(info, DeploymentView::kBasic);
      }));
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::DeleteDeployment(
    grpc::ServerContext* context, const pb::DeleteDeploymentRequest* request,
    google::protobuf::Empty* response) {
  return ReplyOnce(
      log_, context, *request, "DeleteDeployment", response,
      [&](const CallContext&) -> absl::StatusOr<google::protobuf::Empty> {
        SP_ASSIGN_OR_RETURN(const DeploymentId id,
                            ParseDeploymentName(request->name(), "name"));
        SP_RETURN_IF_ERROR(coordinator_->DeleteDeployment(
            {id, request->etag(), request->allow_missing()}));
        return google::protobuf::Empty();
      });
}

grpc::Status CoordinatorService::MaterializeDeployment(
    grpc::ServerContext* context,
    const pb::MaterializeDeploymentRequest* request, pb::Deployment* response) {
  return ReplyOnce(
      log_, context, *request, "MaterializeDeployment", response,
      [&](const CallContext& call_context) -> absl::StatusOr<pb::Deployment> {
        SP_ASSIGN_OR_RETURN(const DeploymentId id,
                            ParseDeploymentName(request->name(), "name"));
        SP_ASSIGN_OR_RETURN(
            const DeploymentInfo info,
            coordinator_->MaterializeDeployment(
                id, GangEpoch{request->epoch()}, call_context,
                request->no_wait() ? Coordinator::Wait::kNot
                                   : Coordinator::Wait::kUntilDone));
        return ToProto(info, DeploymentView::kWithoutModule);
      });
}

grpc::Status CoordinatorService::CreateProgram(
    grpc::ServerContext* context, const pb::CreateProgramRequest* request,
    pb::Program* response) {
  return ReplyOnce(
      log_, context, *request, "CreateProgram", response,
      [&](const CallContext& call_context) -> absl::StatusOr<pb::Program> {
        SP_ASSIGN_OR_RETURN(const DeploymentId id,
                            ParseDeploymentName(request->parent(), "parent"));
        SP_ASSIGN_OR_RETURN(const SignatureSpec signature,
                            SignatureSpecFromProto(request->signature()));
        SP_ASSIGN_OR_RETURN(
            const auto program,
            coordinator_->CreateProgram(id, signature, request->validate_only(),
                                        call_context));
        return ToProto(*program, ProgramView::kFull);
      });
}

grpc::Status CoordinatorService::GetProgram(
    grpc::ServerContext*, const pb::GetProgramRequest* request,
    pb::Program* response) {
  const auto get = [&]() -> absl::StatusOr<pb::Program> {
    SP_ASSIGN_OR_RETURN(const ProgramName name,
                        ParseProgramName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const auto program, coordinator_->GetProgram(
                                                name.deployment, name.program));
    return ToProto(*program, ProgramView::kFull);
  };
  return Reply(get(), response);
}

grpc::Status CoordinatorService::ListPrograms(
    grpc::ServerContext*, const pb::ListProgramsRequest* request,
    pb::ListProgramsResponse* response) {
  const auto list = [&]() -> absl::StatusOr<pb::ListProgramsResponse> {
    SP_ASSIGN_OR_RETURN(const DeploymentId id,
                        ParseDeploymentName(request->parent(), "parent"));
    const std::string collection = absl::StrCat(ResourceName(id), "/programs");
    SP_ASSIGN_OR_RETURN(
        const PageRequest page,
        ParsePage(request->page_size(), request->page_token(), collection));
    SP_ASSIGN_OR_RETURN(const auto programs, coordinator_->ListPrograms(id));
    pb::ListProgramsResponse message;
    message.set_next_page_token(AddPage(
        programs, page, collection,
        [](const auto& program) -> const std::string& {
          return program->id.value;
        },
        [&message](const auto& program) {
          *message.add_programs() =
              ToProto(*program, ProgramView::kWithoutReport);
        }));
    return message;
  };
  return Reply(list(), response);
}

grpc::Status CoordinatorService::Forward(grpc::ServerContext* context,
                                         const pb::ForwardRequest* request,
                                         pb::ForwardResponse* response) {
  const auto run = [&]() -> absl::StatusOr<pb::ForwardResponse> {
    SP_ASSIGN_OR_RETURN(const ForwardCall call, ForwardCallFromProto(*request));
    SP_ASSIGN_OR_RETURN(ForwardAnswer answer,
                        coordinator_->Forward(call, MakeContext(context)));
    return ToProto(std::move(answer));
  };
  return Reply(run(), response);
}

grpc::Status CoordinatorService::Step(grpc::ServerContext* context,
                                      const pb::StepRequest* request,
                                      pb::StepResult* response) {
  // One pass over the tensors serves both memories.
  const std::string digest = DigestOf(*request);
  return ReplyOnce(
      log_, context, request->request_id(),
      absl::StrCat("Step\n", digest, "\n", request->epoch()), response,
      [&](const CallContext& call_context) -> absl::StatusOr<pb::StepResult> {
        SP_ASSIGN_OR_RETURN(StepCall call, StepCallFromProto(*request, digest));
        call.traceparent = call_context.traceparent;
        const DeploymentId deployment = call.deployment;
        SP_ASSIGN_OR_RETURN(const StepAnswer answer,
                            coordinator_->Step(std::move(call), call_context));
        return ToProto(deployment, answer);
      });
}

grpc::ServerBidiReactor<pb::TrainRequest, pb::TrainResponse>*
CoordinatorService::Train(grpc::CallbackServerContext* context) {
  return sessions_.Start(context);
}

grpc::Status CoordinatorService::GetStep(grpc::ServerContext*,
                                         const pb::GetStepRequest* request,
                                         pb::StepResult* response) {
  const auto get = [&]() -> absl::StatusOr<pb::StepResult> {
    SP_ASSIGN_OR_RETURN(const StepName name,
                        ParseStepName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const StepAnswer answer,
                        coordinator_->GetStep(name.deployment, name.number));
    return ToProto(name.deployment, answer);
  };
  return Reply(get(), response);
}

grpc::Status CoordinatorService::UploadTensor(
    grpc::ServerContext* context,
    grpc::ServerReader<pb::UploadTensorRequest>* reader,
    pb::UploadTensorResponse* response) {
  StreamWatch::Stream watched(streams_, [context] { context->TryCancel(); });
  pb::UploadTensorRequest first;
  if (!reader->Read(&first)) {
    return ToGrpcStatus(CheckIsHeader(first));
  }
  if (const absl::Status header = CheckIsHeader(first); !header.ok()) {
    return ToGrpcStatus(header);
  }
  const std::string id = first.header().request_id();
  const CallContext call_context = MakeContext(context);
  first.mutable_header()->clear_request_id();
  const absl::StatusOr<std::string> answer = log_->Run(
      id,
      Digest(absl::StrCat("UploadTensor\n",
                          SerializeDeterministic(first.header()))),
      call_context.deadline, [&]() -> absl::StatusOr<std::string> {
        SP_ASSIGN_OR_RETURN(const UploadCall call,
                            UploadCallFromProto(first.header()));
        SP_ASSIGN_OR_RETURN(const std::unique_ptr<UploadSession> session,
                            coordinator_->Upload(call));
        return Relay(*session, watched, reader, context);
      });
  if (!answer.ok()) {
    return ToGrpcStatus(answer.status());
  }
  while (reader->Read(&first)) {  // of a repeated upload
    watched.Touch();
  }
  response->ParseFromString(*answer);
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::DownloadTensor(
    grpc::ServerContext* context, const pb::DownloadTensorRequest* request,
    grpc::ServerWriter<pb::DownloadTensorResponse>* writer) {
  absl::StatusOr<DownloadCall> call = DownloadCallFromProto(*request);
  if (!call.ok()) {
    return ToGrpcStatus(call.status());
  }
  const absl::StatusOr<DownloadedTensor> tensor =
      coordinator_->Download(*call, MakeContext(context));
  if (!tensor.ok()) {
    return ToGrpcStatus(tensor.status());
  }
  StreamWatch::Stream watched(streams_, [context] { context->TryCancel(); });
  const auto write = [&](const pb::DownloadTensorResponse& message) {
    watched.Touch();
    return writer->Write(message);
  };
  pb::DownloadTensorResponse first;
  *first.mutable_header()->mutable_type() = ToProto(tensor->tensor.type);
  *first.mutable_header()->mutable_spec() = ToProto(tensor->spec);
  if (!write(first) ||
      !SendChunks<pb::DownloadTensorResponse>(tensor->tensor.bytes, write)) {
    return ToGrpcStatus(absl::CancelledError("the client went away"));
  }
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::ListWorkers(
    grpc::ServerContext*, const pb::ListWorkersRequest* request,
    pb::ListWorkersResponse* response) {
  const absl::StatusOr<PageRequest> page =
      ParsePage(request->page_size(), request->page_token(), "workers");
  if (!page.ok()) {
    return ToGrpcStatus(page.status());
  }
  response->set_next_page_token(
      AddPage(coordinator_->ListWorkers(), *page, "workers", IdOf,
              [response](const WorkerRecord& worker) {
                *response->add_workers() = ToProto(worker);
              }));
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::GetWorker(grpc::ServerContext*,
                                           const pb::GetWorkerRequest* request,
                                           pb::WorkerNode* response) {
  const auto get = [&]() -> absl::StatusOr<pb::WorkerNode> {
    SP_ASSIGN_OR_RETURN(const WorkerId id,
                        ParseWorkerName(request->name(), "name"));
    SP_ASSIGN_OR_RETURN(const WorkerRecord worker, coordinator_->GetWorker(id));
    return ToProto(worker);
  };
  return Reply(get(), response);
}

}  // namespace shardplane
