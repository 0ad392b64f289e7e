// shardplane.v1.ShardingCoordinator over a Coordinator: converts, calls,
// converts back.
#ifndef SHARDPLANE_COORDINATOR_COORDINATOR_SERVICE_H_
#define SHARDPLANE_COORDINATOR_COORDINATOR_SERVICE_H_

#include "coordinator/coordinator.h"
#include "coordinator/request_log.h"
#include "coordinator/stream_watch.h"
#include "coordinator/train_session.h"
#include "coordinator/watch_streams.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// Thread-safe. Codes are those of Coordinator's methods, and of the request
// log for every write; see coordinator.h. Borrows all three.
class CoordinatorService final
    : public v1::ShardingCoordinator::WithCallbackMethod_Train<
          v1::ShardingCoordinator::WithCallbackMethod_Watch<
              v1::ShardingCoordinator::Service>> {
 public:
  CoordinatorService(Coordinator* coordinator, RequestLog* log,
                     StreamWatch* streams, const WatchOptions& watches)
      : coordinator_(coordinator),
        log_(log),
        streams_(streams),
        sessions_(coordinator, streams),
        watches_(&coordinator->bulletin(), watches) {}

  // For a server that ends: see TrainSessions::End, WatchStreams::End.
  void EndSessions() {
    sessions_.End();
    watches_.End();
  }

  // Modules: coordinator_service_modules.cc.
  grpc::Status CreateModule(grpc::ServerContext* context,
                            const v1::CreateModuleRequest* request,
                            v1::ModuleResource* response) override;
  grpc::Status GetModule(grpc::ServerContext* context,
                         const v1::GetModuleRequest* request,
                         v1::ModuleResource* response) override;
  grpc::Status ListModules(grpc::ServerContext* context,
                           const v1::ListModulesRequest* request,
                           v1::ListModulesResponse* response) override;
  grpc::Status DeleteModule(grpc::ServerContext* context,
                            const v1::DeleteModuleRequest* request,
                            google::protobuf::Empty* response) override;

  grpc::Status CreateDeployment(grpc::ServerContext* context,
                                const v1::CreateDeploymentRequest* request,
                                v1::Deployment* response) override;
  grpc::Status GetDeployment(grpc::ServerContext* context,
                             const v1::GetDeploymentRequest* request,
                             v1::Deployment* response) override;
  grpc::Status ListDeployments(grpc::ServerContext* context,
                               const v1::ListDeploymentsRequest* request,
                               v1::ListDeploymentsResponse* response) override;
  grpc::Status DeleteDeployment(grpc::ServerContext* context,
                                const v1::DeleteDeploymentRequest* request,
                                google::protobuf::Empty* response) override;
  // coordinator_service_explain.cc. InvalidArgument: not exactly one of name
  // and dry_run.
  grpc::Status ExplainDeployment(grpc::ServerContext* context,
                                 const v1::ExplainDeploymentRequest* request,
                                 v1::Explanation* response) override;
  grpc::Status MaterializeDeployment(
      grpc::ServerContext* context,
      const v1::MaterializeDeploymentRequest* request,
      v1::Deployment* response) override;
  grpc::Status CreateProgram(grpc::ServerContext* context,
                             const v1::CreateProgramRequest* request,
                             v1::Program* response) override;
  grpc::Status GetProgram(grpc::ServerContext* context,
                          const v1::GetProgramRequest* request,
                          v1::Program* response) override;
  grpc::Status ListPrograms(grpc::ServerContext* context,
                            const v1::ListProgramsRequest* request,
                            v1::ListProgramsResponse* response) override;
  grpc::Status Forward(grpc::ServerContext* context,
                       const v1::ForwardRequest* request,
                       v1::ForwardResponse* response) override;
  grpc::Status Step(grpc::ServerContext* context,
                    const v1::StepRequest* request,
                    v1::StepResult* response) override;
  // Codes: see TrainSession.
  grpc::ServerBidiReactor<v1::TrainRequest, v1::TrainResponse>* Train(
      grpc::CallbackServerContext* context) override;
  grpc::Status GetStep(grpc::ServerContext* context,
                       const v1::GetStepRequest* request,
                       v1::StepResult* response) override;
  // Cancelled: the client went away in the middle. DataLoss: bad checksum.
  grpc::Status UploadTensor(grpc::ServerContext* context,
                            grpc::ServerReader<v1::UploadTensorRequest>* reader,
                            v1::UploadTensorResponse* response) override;
  grpc::Status DownloadTensor(
      grpc::ServerContext* context, const v1::DownloadTensorRequest* request,
      grpc::ServerWriter<v1::DownloadTensorResponse>* writer) override;
  grpc::Status ListWorkers(grpc::ServerContext* context,
                           const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override;
  grpc::Status GetWorker(grpc::ServerContext* context,
                         const v1::GetWorkerRequest* request,
                         v1::WorkerNode* response) override;

  // coordinator_service_operations.cc.
  grpc::Status DrainWorker(grpc::ServerContext* context,
                           const v1::DrainWorkerRequest* request,
                           v1::WorkerNode* response) override;
  grpc::Status GetOperation(grpc::ServerContext* context,
                            const v1::GetOperationRequest* request,
                            v1::Operation* response) override;
  grpc::Status ListOperations(grpc::ServerContext* context,
                              const v1::ListOperationsRequest* request,
                              v1::ListOperationsResponse* response) override;
  grpc::Status WaitOperation(grpc::ServerContext* context,
                             const v1::WaitOperationRequest* request,
                             v1::Operation* response) override;
  grpc::Status CancelOperation(grpc::ServerContext* context,
                               const v1::CancelOperationRequest* request,
                               v1::Operation* response) override;
  grpc::Status ListEvents(grpc::ServerContext* context,
                          const v1::ListEventsRequest* request,
                          v1::ListEventsResponse* response) override;
  grpc::Status ListSteps(grpc::ServerContext* context,
                         const v1::ListStepsRequest* request,
                         v1::ListStepsResponse* response) override;
  grpc::Status GetStepTimeline(grpc::ServerContext* context,
                               const v1::GetStepTimelineRequest* request,
                               v1::StepTimeline* response) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(
      grpc::CallbackServerContext* context,
      const v1::WatchRequest* request) override;

 private:
  Coordinator* const coordinator_;
  RequestLog* const log_;
  StreamWatch* const streams_;
  TrainSessions sessions_;
  WatchStreams watches_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_COORDINATOR_SERVICE_H_
