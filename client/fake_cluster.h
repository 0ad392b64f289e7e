// For tests: a coordinator that has the resources that it is given, behind a
// real connection.
#ifndef SHARDPLANE_CLIENT_FAKE_CLUSTER_H_
#define SHARDPLANE_CLIENT_FAKE_CLUSTER_H_

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// What lists show and Get finds by name.
struct FakeResources {
  std::vector<v1::WorkerNode> workers;
  std::vector<v1::ModuleResource> modules;
  std::vector<v1::Deployment> deployments;
  std::vector<v1::Program> programs;
  std::vector<v1::StepResult> steps;
  std::vector<v1::StepTimeline> timelines;
  std::vector<v1::Operation> operations;
  std::vector<v1::Event> events;
};

// One call of Watch: what it sends, and how it ends. Without an end it stays
// open until it is cancelled.
struct FakeWatch {
  std::vector<v1::WatchResponse> messages;
  bool stays = false;
  grpc::Status end;
};

// Serves on a port of its own from construction to destruction. Lists have
// pages of two. What is deleted, drained or cancelled changes; the rest is as
// the test says. Thread-safe.
class FakeCluster final : public v1::ShardingCoordinator::Service {
 public:
  explicit FakeCluster(FakeResources resources = {});
  ~FakeCluster() override;

  const std::string& address() const { return address_; }
  FakeResources resources() const;
  void SetResources(FakeResources resources);
  // The next call, of any method, ends so.
  void FailNext(const grpc::Status& status);
  // Methods of later protos: the cluster answers as one that lacks them.
  void LacksNewMethods();
  // WaitOperation answers with these one after the other, then with the last.
  void SetWaits(std::vector<v1::Operation> operations);
  void AddWatch(FakeWatch watch);
  std::vector<v1::WatchRequest> watches() const;  // as they came
  std::vector<v1::CreateDeploymentRequest> created() const;
  void SetPlanned(v1::Deployment planned);  // what validate_only answers

  grpc::Status CreateDeployment(grpc::ServerContext*,
                                const v1::CreateDeploymentRequest*,
                                v1::Deployment*) override;
  grpc::Status MaterializeDeployment(grpc::ServerContext*,
                                     const v1::MaterializeDeploymentRequest*,
                                     v1::Deployment*) override;
  grpc::Status GetDeployment(grpc::ServerContext*,
                             const v1::GetDeploymentRequest*,
                             v1::Deployment*) override;
  grpc::Status ListDeployments(grpc::ServerContext*,
                               const v1::ListDeploymentsRequest*,
                               v1::ListDeploymentsResponse*) override;
  grpc::Status DeleteDeployment(grpc::ServerContext*,
                                const v1::DeleteDeploymentRequest*,
                                google::protobuf::Empty*) override;
  grpc::Status GetModule(grpc::ServerContext*, const v1::GetModuleRequest*,
                         v1::ModuleResource*) override;
  grpc::Status ListModules(grpc::ServerContext*, const v1::ListModulesRequest*,
                           v1::ListModulesResponse*) override;
  grpc::Status GetProgram(grpc::ServerContext*, const v1::GetProgramRequest*,
                          v1::Program*) override;
  grpc::Status ListPrograms(grpc::ServerContext*,
                            const v1::ListProgramsRequest*,
                            v1::ListProgramsResponse*) override;
  grpc::Status GetStep(grpc::ServerContext*, const v1::GetStepRequest*,
                       v1::StepResult*) override;
  grpc::Status ListSteps(grpc::ServerContext*, const v1::ListStepsRequest*,
                         v1::ListStepsResponse*) override;
  grpc::Status GetStepTimeline(grpc::ServerContext*,
                               const v1::GetStepTimelineRequest*,
                               v1::StepTimeline*) override;
  grpc::Status GetWorker(grpc::ServerContext*, const v1::GetWorkerRequest*,
                         v1::WorkerNode*) override;
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse*) override;
  grpc::Status DrainWorker(grpc::ServerContext*, const v1::DrainWorkerRequest*,
                           v1::WorkerNode*) override;
  grpc::Status GetOperation(grpc::ServerContext*,
                            const v1::GetOperationRequest*,
                            v1::Operation*) override;
  grpc::Status ListOperations(grpc::ServerContext*,
                              const v1::ListOperationsRequest*,
                              v1::ListOperationsResponse*) override;
  grpc::Status WaitOperation(grpc::ServerContext*,
                             const v1::WaitOperationRequest*,
                             v1::Operation*) override;
  grpc::Status CancelOperation(grpc::ServerContext*,
                               const v1::CancelOperationRequest*,
                               v1::Operation*) override;
  grpc::Status ListEvents(grpc::ServerContext*, const v1::ListEventsRequest*,
                          v1::ListEventsResponse*) override;
  grpc::Status Watch(grpc::ServerContext* context,
                     const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override;

 private:
  // What a call ends with, unless it is OK; of methods that are new and
  // lacking.
  grpc::Status Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  grpc::Status NextOfNew() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::unique_ptr<grpc::Server> server_;
  std::string address_;

  mutable absl::Mutex mu_;
  FakeResources resources_ ABSL_GUARDED_BY(mu_);
  std::deque<grpc::Status> failures_ ABSL_GUARDED_BY(mu_);
  bool lacks_new_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::Operation> waits_ ABSL_GUARDED_BY(mu_);
  std::deque<FakeWatch> watches_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::WatchRequest> watched_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::CreateDeploymentRequest> created_ ABSL_GUARDED_BY(mu_);
  v1::Deployment planned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_FAKE_CLUSTER_H_
