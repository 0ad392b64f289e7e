// For tests: a coordinator with fake workers, and what is done with it.
#ifndef SHARDPLANE_COORDINATOR_COORDINATOR_FIXTURE_H_
#define SHARDPLANE_COORDINATOR_COORDINATOR_FIXTURE_H_

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"
#include "coordinator/fake_worker.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/tensor_stream.h"
#include "tests/matchers.h"

namespace shardplane {

// What a fake worker fails with.
inline absl::Status Refusal() {
  return MakeError(absl::StatusCode::kInternal, "boom", {.reason = "BOOM"});
}

// What a rank says of a step that another one could not run.
inline absl::Status PeerFailed() {
  return MakeError(absl::StatusCode::kFailedPrecondition, "a peer failed",
                   {.reason = "PEER_FAILED", .metadata = {}});
}

inline HostTensor Zeros(const TensorType& type) {
  return {type, std::string(ByteSize(type), '\0')};
}

class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest() { coordinator_.emplace(cluster_.options()); }

  void AddWorkers(int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_THAT(Register(absl::StrCat("w", i)), IsOk());
    }
  }
  absl::StatusOr<Coordinator::Lease> Register(const std::string& id,
                                              uint64_t incarnation = 7) {
    return coordinator_->RegisterWorker(
        {.id = WorkerId{id},
         .incarnation = Incarnation{incarnation},
         .address = id,
         .device = "cpu"});
  }
  absl::StatusOr<DeploymentInfo> Create(int ranks, bool validate_only = false) {
    return coordinator_->CreateDeployment(
        {.spec = MlpSpec(ranks), .validate_only = validate_only}, {});
  }
  absl::Status UploadTo(const DeploymentId& id, const std::string& parameter,
                        const TensorType& type,
                        std::optional<int> rank = std::nullopt) {
    return Send(
        {.deployment = id, .type = type, .parameter = parameter, .rank = rank});
  }
  absl::Status UploadInput(const std::string& upload,
                           const TensorType& type = MlpInput(), char fill = 0) {
    return Send({.deployment = id_, .type = type, .upload = upload}, fill);
  }
  absl::Status Send(const UploadCall& call, char fill = 0) {
    SP_ASSIGN_OR_RETURN(const auto session, coordinator_->Upload(call));
    TensorChunker chunker(bytes_.emplace_back(ByteSize(call.type), fill), 100);
    v1::TensorData chunk;
    while (chunker.Next(&chunk)) {
      SP_RETURN_IF_ERROR(session->Write(chunk));
    }
    return session->Finish().status();
  }
  absl::Status UploadAll(const DeploymentId& id) {
    const GraphModule module = SequentialMlp();
    for (const Parameter& parameter : module.parameters()) {
      SP_RETURN_IF_ERROR(UploadTo(id, parameter.fqn, parameter.type));
    }
    return absl::OkStatus();
  }
  // A deployment over `ranks` workers that is READY, with one program.
  void Deploy(int ranks) {
    ASSERT_NO_FATAL_FAILURE(TryDeploy(ranks));
    // What follows makes no sense without it.
    if (HasFatalFailure()) std::abort();
  }
  void TryDeploy(int ranks) {
    const auto info = Create(ranks);
    ASSERT_THAT(info, IsOk());
    id_ = info->id;
    ASSERT_THAT(UploadAll(id_), IsOk());
    ASSERT_THAT(coordinator_->MaterializeDeployment(id_, {}, {}), IsOk());
    const auto program = coordinator_->CreateProgram(
        id_, MlpSignature(WithLoss::kSum), false, {});
    ASSERT_THAT(program, IsOk());
    program_ = (*program)->id;
  }
  StepCall TrainCall(uint64_t number, const std::string& digest = "body") {
    TrainAction train{.program = {id_, program_},
                      .inputs = {Zeros(MlpInput())},
                      .optimizer = OptimizerOptions{SgdOptions{.lr = 0.25}}};
    return {.deployment = id_,
            .number = StepNumber{number},
            .digest = digest,
            .action = train};
  }
  absl::StatusOr<StepAnswer> Train(uint64_t number,
                                   const std::string& digest = "body") {
    return coordinator_->Step(TrainCall(number, digest), {});
  }
  absl::StatusOr<ForwardAnswer> Forward(std::vector<TensorSource> inputs) {
    return coordinator_->Forward({.deployment = id_,
                                  .program = {id_, program_},
                                  .inputs = std::move(inputs)},
                                 {});
  }
  DeploymentPhase Phase() { return coordinator_->GetDeployment(id_)->phase; }
  std::vector<std::string> FreeWorkers() {
    std::vector<std::string> free;
    for (const WorkerRecord& worker : coordinator_->ListWorkers()) {
      if (worker.state == WorkerState::kReady && !worker.seat.has_value()) {
        free.push_back(worker.id.value);
      }
    }
    return free;
  }

  FakeCluster cluster_;
  std::vector<std::string> bytes_;
  std::optional<Coordinator> coordinator_;
  DeploymentId id_;
  ProgramId program_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_COORDINATOR_FIXTURE_H_
