// The Worker service: converts messages for a GangWorker, and back.
#ifndef SHARDPLANE_WORKER_WORKER_SERVICE_H_
#define SHARDPLANE_WORKER_WORKER_SERVICE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "shardplane/v1/worker.grpc.pb.h"
#include "telemetry/metrics.h"
#include "worker/gang_worker.h"
#include "worker/steps_stream.h"

namespace shardplane {

// Makes the store of a gang: `address` is the coordinator's, as the join names
// it ("": the one that this worker registered with).
using MakeGangStore = std::function<std::shared_ptr<GangStore>(
    const std::string& address, const GangCall& call, int rank)>;

// Codes: InvalidArgument for messages that the converters refuse, DataLoss for
// a stream whose checksum differs, else as GangWorker says. Thread-safe. Each
// call has a thread of gRPC's to itself, but Steps has none (StepsStream).
class WorkerService final
    : public v1::Worker::WithCallbackMethod_Steps<v1::Worker::Service> {
 public:
  // Borrows `worker`, and `metrics` (may be null), which outlive the server.
  WorkerService(GangWorker* worker, MakeGangStore make_store,
                Metrics* metrics = nullptr)
      : worker_(worker),
        make_store_(std::move(make_store)),
        metrics_(metrics) {}

  grpc::Status JoinGang(grpc::ServerContext* context,
                        const v1::JoinGangRequest* request,
                        google::protobuf::Empty* response) override;
  grpc::Status LeaveGang(grpc::ServerContext* context,
                         const v1::LeaveGangRequest* request,
                         google::protobuf::Empty* response) override;
  grpc::Status StageTensor(grpc::ServerContext* context,
                           grpc::ServerReader<v1::StageTensorRequest>* reader,
                           google::protobuf::Empty* response) override;
  grpc::Status Materialize(grpc::ServerContext* context,
                           const v1::MaterializeRequest* request,
                           v1::MaterializeResponse* response) override;
  grpc::Status LoadProgram(grpc::ServerContext* context,
                           const v1::LoadProgramRequest* request,
                           google::protobuf::Empty* response) override;
  grpc::Status Run(grpc::ServerContext* context, const v1::RunRequest* request,
                   v1::RunResponse* response) override;
  grpc::ServerBidiReactor<v1::StepsRequest, v1::StepsResponse>* Steps(
      grpc::CallbackServerContext* context) override;
  grpc::Status Commit(grpc::ServerContext* context,
                      const v1::CommitRequest* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Abort(grpc::ServerContext* context,
                     const v1::AbortRequest* request,
                     google::protobuf::Empty* response) override;
  grpc::Status ReadTensor(
      grpc::ServerContext* context, const v1::ReadTensorRequest* request,
      grpc::ServerWriter<v1::ReadTensorResponse>* writer) override;
  grpc::Status GetProgress(grpc::ServerContext* context,
                           const v1::GetProgressRequest* request,
                           v1::GetProgressResponse* response) override;
  grpc::Status GetTimeline(grpc::ServerContext* context,
                           const v1::GetTimelineRequest* request,
                           v1::GetTimelineResponse* response) override;

  // A stream of steps, over `transport`: counts it, and ends it with the
  // others.
  void Keep(const std::shared_ptr<StepsStream>& stream,
            const std::string& transport);

  // For a process that ends: steps that were read are run and answered, then
  // their streams end (Unavailable, reason WORKER_DRAINING), and every later
  // one at once.
  void EndStreams();

 private:
  absl::Status DoJoin(const v1::JoinGangRequest& request);
  absl::Status DoStage(grpc::ServerReader<v1::StageTensorRequest>& reader);
  absl::Status DoMaterialize(const v1::MaterializeRequest& request,
                             v1::MaterializeResponse& response);
  absl::Status DoLoadProgram(const v1::LoadProgramRequest& request);
  absl::Status DoRun(const v1::RunRequest& request, v1::RunResponse& response);
  absl::Status DoCommit(const v1::CommitRequest& request);
  absl::Status DoRead(const v1::ReadTensorRequest& request,
                      grpc::ServerWriter<v1::ReadTensorResponse>& writer);

  GangWorker* const worker_;
  const MakeGangStore make_store_;
  Metrics* const metrics_;

  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  // Their carriers', beside those that they are done with.
  std::vector<std::weak_ptr<StepsStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_WORKER_SERVICE_H_
