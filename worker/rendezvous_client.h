// A gang's store over the coordinator's Rendezvous service.
#ifndef SHARDPLANE_WORKER_RENDEZVOUS_CLIENT_H_
#define SHARDPLANE_WORKER_RENDEZVOUS_CLIENT_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "worker/executor.h"

namespace shardplane {

// Codes: DeadlineExceeded when keys do not come, Aborted when the gang's epoch
// is over, Cancelled after Cancel, Unavailable when the coordinator is gone.
class RendezvousClient : public GangStore {
 public:
  // `member` goes with every call.
  RendezvousClient(std::shared_ptr<grpc::Channel> channel,
                   v1::GangMember member);

  absl::Status Set(const std::string& key, std::string value) override;
  absl::StatusOr<std::vector<std::string>> Get(
      const std::vector<std::string>& keys,
      std::chrono::milliseconds timeout) override;
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;
  absl::StatusOr<std::string> CompareSet(const std::string& key,
                                         const std::string& expected,
                                         const std::string& desired) override;
  absl::StatusOr<bool> Delete(const std::string& key) override;
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override;
  absl::StatusOr<int64_t> NumKeys() override;
  void Cancel() override;

 private:
  // Makes one call that Cancel can end, with a deadline.
  absl::Status Call(std::chrono::milliseconds timeout,
                    absl::FunctionRef<grpc::Status(grpc::ClientContext*)> call);

  const std::unique_ptr<v1::Rendezvous::Stub> stub_;
  const v1::GangMember member_;

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_RENDEZVOUS_CLIENT_H_
