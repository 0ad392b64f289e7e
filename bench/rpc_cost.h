// What a step costs beside the workers' own time, and what gRPC alone costs.
#ifndef SHARDPLANE_BENCH_RPC_COST_H_
#define SHARDPLANE_BENCH_RPC_COST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// Microseconds, one entry a step.
struct StepTimes {
  std::vector<double> call;         // from the request to the answer
  std::vector<double> coordinator;  // of it, as the coordinator says
  std::vector<double> workers;      // of it, run and commit where they took
                                    // longest
};

// A small model (an MLP 10-16-10, batch 8, mean square error, SGD) on a
// coordinator's workers. One thread at a time.
class StepSide {
 public:
  // Deploys it. Errors are the client's.
  static absl::StatusOr<std::unique_ptr<StepSide>> Create(
      const std::string& address, int workers);
  ~StepSide();  // deletes it

  // `count` unary steps, one after the other.
  absl::Status Steps(int count, StepTimes* times);
  // Microseconds a step, in a stream of `count` with at most `ahead` of them
  // unanswered.
  absl::Status Train(int count, int ahead, std::vector<double>* times);

  // The step that it would take next.
  v1::StepRequest NextStep() const;

 private:
  StepSide(std::unique_ptr<Client> client, v1::Deployment deployment);

  const std::unique_ptr<Client> client_;
  const v1::Deployment deployment_;
  v1::StepRequest step_;  // without a number
  uint64_t last_step_ = 0;
};

// The same messages to and from an EchoServer, with nothing but gRPC's
// synchronous stubs. One thread at a time.
class EchoSide {
 public:
  // `step`: what is sent.
  EchoSide(const std::string& address, v1::StepRequest step);

  // Microseconds of each of `count` unary calls.
  absl::Status Calls(int count, std::vector<double>* times);
  // Microseconds of each of `count` messages on a stream and their answers.
  absl::Status Messages(int count, std::vector<double>* times);
  // Microseconds a message, on a stream of `count` with at most `ahead` of
  // them unanswered.
  absl::Status Stream(int count, int ahead, std::vector<double>* times);

 private:
  const v1::StepRequest step_;
  const std::unique_ptr<v1::ShardingCoordinator::Stub> stub_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_BENCH_RPC_COST_H_
