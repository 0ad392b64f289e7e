#include "worker/worker_service.h"

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "proto/convert/field_path.h"
#include "proto/convert/program.h"
#include "proto/convert/report.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"
#include "worker/worker_convert.h"

namespace shardplane {

namespace pb = ::shardplane::v1;
using google::protobuf::Empty;
using grpc::ServerContext;

namespace {

absl::Status Draining() {
  return MakeError(absl::StatusCode::kUnavailable,
                   "expected a worker that takes steps, got: one that ends",
                   {.reason = "WORKER_DRAINING", .metadata = {}});
}

}  // namespace

absl::Status WorkerService::DoJoin(const pb::JoinGangRequest& request) {
  const GangCall call = ToGangCall(request.gang());
  SP_ASSIGN_OR_RETURN(const GangSpec spec, ToGangSpec(request));
  return worker_->Join(call, spec,
                       make_store_(request.rendezvous(), call, spec.rank));
}

absl::Status WorkerService::DoStage(
    grpc::ServerReader<pb::StageTensorRequest>& reader) {
  pb::StageTensorRequest first;
  if (!reader.Read(&first)) return MissingField("header");
  SP_RETURN_IF_ERROR(CheckIsHeader(first));
  SP_ASSIGN_OR_RETURN(const TensorType type,
                      FromProto(first.header().type(), "header.type"));
  SP_ASSIGN_OR_RETURN(HostTensor tensor, ReceiveChunks<pb::StageTensorRequest>(
                                             type, [&](auto* message) {
                                               return reader.Read(message);
                                             }));
  return worker_->Stage(ToGangCall(first.header().gang()), first.header().key(),
                        std::move(tensor));
}

absl::Status WorkerService::DoMaterialize(const pb::MaterializeRequest& request,
                                          pb::MaterializeResponse& response) {
  SP_ASSIGN_OR_RETURN(const MaterializeSpec spec, ToMaterializeSpec(request));
  SP_ASSIGN_OR_RETURN(const RanCollectives ran,
                      worker_->Materialize(ToGangCall(request.gang()), spec));
  *response.mutable_collectives() = CountsToProto(ran.counts);
  return absl::OkStatus();
}

absl::Status WorkerService::DoLoadProgram(
    const pb::LoadProgramRequest& request) {
  SP_ASSIGN_OR_RETURN(const ShardedProgram program,
                      FromProto(request.body(), "body"));
  return worker_->LoadProgram(ToGangCall(request.gang()), request.program(),
                              program);
}

absl::Status WorkerService::DoRun(const pb::RunRequest& request,
                                  pb::RunResponse& response) {
  SP_ASSIGN_OR_RETURN(GangRun run, ToGangRun(request));
  SP_ASSIGN_OR_RETURN(RunResult result,
                      worker_->Run(ToGangCall(request.gang()), std::move(run)));
  FillResponse(std::move(result), response);
  return absl::OkStatus();
}

absl::Status WorkerService::DoCommit(const pb::CommitRequest& request) {
  SP_ASSIGN_OR_RETURN(const GangCommit commit, ToGangCommit(request));
  return worker_->Commit(ToGangCall(request.gang()), commit);
}

absl::Status WorkerService::DoRead(
    const pb::ReadTensorRequest& request,
    grpc::ServerWriter<pb::ReadTensorResponse>& writer) {
  SP_ASSIGN_OR_RETURN(const TensorKey key, ToTensorKey(request.tensor()));
  SP_ASSIGN_OR_RETURN(const ShardedTensor tensor,
                      worker_->Read(ToGangCall(request.gang()), key));
  pb::ReadTensorResponse first;
  *first.mutable_header()->mutable_type() = ToProto(tensor.local.type);
  *first.mutable_header()->mutable_global() = ToProto(tensor.global);
  *first.mutable_header()->mutable_spec() = ToProto(tensor.spec);
  // A reader that is gone gets no error either.
  if (writer.Write(first)) {
    SendChunks<pb::ReadTensorResponse>(
        tensor.local.bytes,
        [&](const auto& message) { return writer.Write(message); });
  }
  return absl::OkStatus();
}

grpc::Status WorkerService::JoinGang(ServerContext*,
                                     const pb::JoinGangRequest* request,
                                     Empty*) {
  return ToGrpcStatus(DoJoin(*request));
}

grpc::Status WorkerService::LeaveGang(ServerContext*,
                                      const pb::LeaveGangRequest* request,
                                      Empty*) {
  return ToGrpcStatus(worker_->Leave(ToGangCall(request->gang())));
}

grpc::Status WorkerService::StageTensor(
    ServerContext*, grpc::ServerReader<pb::StageTensorRequest>* reader,
    Empty*) {
  return ToGrpcStatus(DoStage(*reader));
}

grpc::Status WorkerService::Materialize(ServerContext*,
                                        const pb::MaterializeRequest* request,
                                        pb::MaterializeResponse* response) {
  return ToGrpcStatus(DoMaterialize(*request, *response));
}

grpc::Status WorkerService::LoadProgram(ServerContext*,
                                        const pb::LoadProgramRequest* request,
                                        Empty*) {
  return ToGrpcStatus(DoLoadProgram(*request));
}

grpc::Status WorkerService::Run(ServerContext*, const pb::RunRequest* request,
                                pb::RunResponse* response) {
  return ToGrpcStatus(DoRun(*request, *response));
}

grpc::ServerBidiReactor<pb::StepsRequest, pb::StepsResponse>*
WorkerService::Steps(grpc::CallbackServerContext*) {
  const std::shared_ptr<GrpcStepsStream> stream =
      GrpcStepsStream::Start(worker_);
  Keep(stream, "grpc");
  return stream.get();  // which owns itself
}

void WorkerService::Keep(const std::shared_ptr<StepsStream>& stream,
                         const std::string& transport) {
  if (metrics_ != nullptr) metrics_->Add(Counter::kStepStreams, {transport});
  bool ending = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto is_done = [](const auto& earlier) { return earlier.expired(); };
    streams_.erase(std::remove_if(streams_.begin(), streams_.end(), is_done),
                   streams_.end());
    streams_.push_back(stream);
    ending = ending_;
  }
  if (ending) stream->End(Draining());
}

void WorkerService::EndStreams() {
  std::vector<std::weak_ptr<StepsStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    streams = streams_;
  }
  for (const std::weak_ptr<StepsStream>& each : streams) {
    if (const std::shared_ptr<StepsStream> stream = each.lock()) {
      stream->End(Draining());
    }
  }
}

grpc::Status WorkerService::Commit(ServerContext*,
                                   const pb::CommitRequest* request, Empty*) {
  return ToGrpcStatus(DoCommit(*request));
}

grpc::Status WorkerService::Abort(ServerContext*,
                                  const pb::AbortRequest* request, Empty*) {
  return ToGrpcStatus(
      worker_->Abort(ToGangCall(request->gang()), request->reason()));
}

grpc::Status WorkerService::ReadTensor(
    ServerContext*, const pb::ReadTensorRequest* request,
    grpc::ServerWriter<pb::ReadTensorResponse>* writer) {
  return ToGrpcStatus(DoRead(*request, *writer));
}

grpc::Status WorkerService::GetProgress(ServerContext*,
                                        const pb::GetProgressRequest* request,
                                        pb::GetProgressResponse* response) {
  const auto progress = worker_->Progress(ToGangCall(request->gang()));
  if (!progress.ok()) return ToGrpcStatus(progress.status());
  response->set_bytes_done(progress->first);
  response->set_bytes_total(progress->second);
  return grpc::Status::OK;
}

grpc::Status WorkerService::GetTimeline(ServerContext*,
                                        const pb::GetTimelineRequest* request,
                                        pb::GetTimelineResponse* response) {
  const auto timeline =
      worker_->Timeline(ToGangCall(request->gang()), request->step());
  if (!timeline.ok()) return ToGrpcStatus(timeline.status());
  FillResponse(*timeline, *response);
  return grpc::Status::OK;
}

}  // namespace shardplane
