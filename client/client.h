// A client of a coordinator: deployments, programs, steps, tensors.
#ifndef SHARDPLANE_CLIENT_CLIENT_H_
#define SHARDPLANE_CLIENT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/backoff.h"
#include "client/train_stream.h"
#include "client/watch_stream.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

struct ClientOptions {
  // Absent: plain text.
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  // Deadlines, of one try each.
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration call_timeout = absl::Seconds(60);  // of all but the next two
  absl::Duration step_timeout = absl::Minutes(10);  // Forward, Step
  absl::Duration transfer_timeout = absl::Minutes(5);  // one tensor
  BackoffOptions backoff;
  // How a call waits before its next try.
  std::function<void(absl::Duration)> sleep = &absl::SleepFor;
};

// A tensor that was downloaded.
struct DownloadedTensor {
  v1::TensorType type;   // of `bytes`: of one rank's shard, that shard's own
  v1::DTensorSpec spec;  // where the whole tensor lies
  std::string bytes;     // row-major, little-endian
};

// Any thread may call any method at any time; calls run side by side. Requests
// and answers are the messages of the API (coordinator.proto says what they
// mean and which errors there are). Every call
// - has a deadline: DeadlineExceeded;
// - is tried again while the coordinator is Unavailable, as BackoffOptions say,
//   under the same request id (made up where the request has none), so that a
//   write takes effect once however often it is sent;
// - returns errors with their details, which ErrorInfoOf reads.
//
//   absl::StatusOr<std::unique_ptr<Client>> client =
//       Client::Connect("localhost:7070");
//   ...
//   absl::StatusOr<v1::StepResult> result = (*client)->Step(request);
//
// Lists come whole: all their pages, one after the other.
class Client {
 public:
  // `address`: host:port. Unavailable: nobody has answered there in time.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const std::string& address, ClientOptions options = {});

  absl::StatusOr<v1::ModuleResource> CreateModule(
      v1::CreateModuleRequest request);
  absl::StatusOr<v1::ModuleResource> GetModule(const std::string& name);
  absl::StatusOr<v1::ListModulesResponse> ListModules();
  absl::Status DeleteModule(v1::DeleteModuleRequest request);

  // With request.validate_only it plans and touches no worker.
  absl::StatusOr<v1::Deployment> CreateDeployment(
      v1::CreateDeploymentRequest request);
  absl::StatusOr<v1::Deployment> GetDeployment(const std::string& name);
  absl::StatusOr<v1::ListDeploymentsResponse> ListDeployments();
  absl::Status DeleteDeployment(v1::DeleteDeploymentRequest request);
  // Of a deployment that there is, or of one that is planned and not made.
  absl::StatusOr<v1::Explanation> ExplainDeployment(
      const v1::ExplainDeploymentRequest& request);
  // Once the parameters that are not meta have been uploaded.
  absl::StatusOr<v1::Deployment> MaterializeDeployment(
      v1::MaterializeDeploymentRequest request);

  absl::StatusOr<v1::Program> CreateProgram(v1::CreateProgramRequest request);
  absl::StatusOr<v1::Program> GetProgram(const std::string& name);
  // `parent`: deployments/{d}.
  absl::StatusOr<v1::ListProgramsResponse> ListPrograms(
      const std::string& parent);

  absl::StatusOr<v1::ForwardResponse> Forward(v1::ForwardRequest request);
  // request.step is the deployment's last_step + 1. A step that is sent again
  // (by this or by the caller, under the same number) is answered, not done
  // twice; any other number is Aborted and names the one expected.
  absl::StatusOr<v1::StepResult> Step(v1::StepRequest request);
  // `name`: deployments/{d}/steps/{n}, of the last 64 steps.
  absl::StatusOr<v1::StepResult> GetStep(const std::string& name);
  // Those of `parent`, deployments/{d}, with a higher number than `after`.
  absl::StatusOr<v1::ListStepsResponse> ListSteps(const std::string& parent,
                                                  uint64_t after = 0);
  // `name`: deployments/{d}/steps/{n}.
  absl::StatusOr<v1::StepTimeline> GetStepTimeline(const std::string& name);
  // Steps without waiting for their answers. It ends before the client does.
  std::unique_ptr<TrainStream> Train(const TrainStreamOptions& options = {});

  // Sends a tensor in chunks, with a checksum: a parameter for Materialize, or
  // an upload for Tensor.upload, as the header says. `bytes`: all elements,
  // row-major, little-endian.
  absl::Status Upload(v1::UploadTensorRequest::Header header,
                      absl::string_view bytes);
  // DataLoss: what came is not what was sent (its CRC-32 differs).
  absl::StatusOr<DownloadedTensor> Download(
      const v1::DownloadTensorRequest& request);

  absl::StatusOr<v1::WorkerNode> GetWorker(const std::string& name);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::WorkerNode> DrainWorker(v1::DrainWorkerRequest request);

  absl::StatusOr<v1::Operation> GetOperation(const std::string& name);
  absl::StatusOr<v1::ListOperationsResponse> ListOperations();
  // As it is when it has ended, or after `timeout` (that of calls at most).
  absl::StatusOr<v1::Operation> WaitOperation(const std::string& name,
                                              absl::Duration timeout);
  absl::StatusOr<v1::Operation> CancelOperation(
      v1::CancelOperationRequest request);

  // `resource`: of this one alone, unless it is empty.
  absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const std::string& resource = "");
  // What changes, as it does. It ends before the client does.
  std::unique_ptr<WatchStream> Watch(v1::WatchRequest request,
                                     WatchStreamOptions options = {});

 private:
  Client(ClientOptions options, std::shared_ptr<grpc::Channel> channel);

  // Runs `attempt`, which makes one call with the context that it is given,
  // until it has succeeded or failed for good.
  absl::Status Retried(
      absl::Duration timeout,
      absl::FunctionRef<absl::Status(grpc::ClientContext*)> attempt);
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(
      grpc::Status (v1::ShardingCoordinator::Stub::*method)(
          grpc::ClientContext*, const Request&, Response*),
      const Request& request, absl::Duration timeout);
  // Of requests that have a name alone.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Named(
      grpc::Status (v1::ShardingCoordinator::Stub::*method)(
          grpc::ClientContext*, const Request&, Response*),
      const std::string& name);
  template <typename Request, typename Response>
  absl::StatusOr<Response> AllPages(
      grpc::Status (v1::ShardingCoordinator::Stub::*method)(
          grpc::ClientContext*, const Request&, Response*),
      Request request);

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;  // shared with its streams
  const std::unique_ptr<v1::ShardingCoordinator::Stub> stub_;
};

// A request as JSON, as grpcurl takes it and docs/examples has them. Fields
// may have either of their names, "src_data_rank" or "srcDataRank".
// InvalidArgument: it is no JSON, or names a field that there is not.
absl::StatusOr<v1::CreateDeploymentRequest> ParseCreateDeployment(
    const std::string& json);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_CLIENT_H_
