// For tests: a coordinator that does as it is told, behind a real connection.
#ifndef SHARDPLANE_CLIENT_FAKE_COORDINATOR_H_
#define SHARDPLANE_CLIENT_FAKE_COORDINATOR_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// An upload as it came.
struct FakeUpload {
  v1::UploadTensorRequest::Header header;
  std::vector<v1::TensorData> chunks;
};

// Serves on a port of its own from construction to destruction. Steps succeed,
// under their number; Train answers each message with one. Thread-safe.
class FakeCoordinator final : public v1::ShardingCoordinator::Service {
 public:
  FakeCoordinator();
  ~FakeCoordinator() override;

  const std::string& address() const { return address_; }

  // The next call, of any method, ends so, once it has received its request.
  // Several are used up in order.
  void FailNext(const grpc::Status& status);
  // A stream of Train ends so when that step comes; OK: without a word.
  void EndTrainAt(uint64_t step, const grpc::Status& status);
  // What the next download sends.
  void SetDownload(std::vector<v1::DownloadTensorResponse> messages);
  // Step and Train neither read nor answer until Release or their cancellation.
  void Hold();
  void Release();
  void WaitUntilHeld();       // some call
  void WaitUntilCancelled();  // one that was held
  void WaitForTrainMessages(size_t count);

  std::vector<v1::StepRequest> steps() const;  // of Step, in order
  std::vector<FakeUpload> uploads() const;     // also those that failed
  std::vector<int> train_messages() const;     // steps in each

  grpc::Status GetDeployment(grpc::ServerContext* context,
                             const v1::GetDeploymentRequest* request,
                             v1::Deployment* response) override;
  grpc::Status Step(grpc::ServerContext* context,
                    const v1::StepRequest* request,
                    v1::StepResult* response) override;
  grpc::Status Train(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::TrainResponse, v1::TrainRequest>* stream)
      override;
  grpc::Status UploadTensor(grpc::ServerContext* context,
                            grpc::ServerReader<v1::UploadTensorRequest>* reader,
                            v1::UploadTensorResponse* response) override;
  grpc::Status DownloadTensor(
      grpc::ServerContext* context, const v1::DownloadTensorRequest* request,
      grpc::ServerWriter<v1::DownloadTensorResponse>* writer) override;

 private:
  grpc::Status NextStatus();
  void WaitWhileHeld(grpc::ServerContext* context);

  std::unique_ptr<grpc::Server> server_;
  std::string address_;

  mutable absl::Mutex mu_;
  std::deque<grpc::Status> failures_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<uint64_t, grpc::Status> ends_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::DownloadTensorResponse> download_ ABSL_GUARDED_BY(mu_);
  bool hold_ ABSL_GUARDED_BY(mu_) = false;
  int held_ ABSL_GUARDED_BY(mu_) = 0;  // that were, or are
  int cancelled_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<v1::StepRequest> steps_ ABSL_GUARDED_BY(mu_);
  std::vector<FakeUpload> uploads_ ABSL_GUARDED_BY(mu_);
  std::vector<int> train_messages_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_FAKE_COORDINATOR_H_
