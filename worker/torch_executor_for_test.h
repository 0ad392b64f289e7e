// For tests: a gang whose ranks are threads of the test, each with the real
// executor.
#ifndef SHARDPLANE_WORKER_TORCH_EXECUTOR_FOR_TEST_H_
#define SHARDPLANE_WORKER_TORCH_EXECUTOR_FOR_TEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/fake_gang_store.h"
#include "worker/programs_for_test.h"
#include "worker/torch_executor.h"
#include "worker/transport_for_test.h"
#include "worker/weights/safetensors_for_test.h"

namespace shardplane {

// Ranks that are threads, each with an executor of its own on DeviceForTest.
class TorchExecutorTest : public testing::Test {
 protected:
  // Nobody aborts those whose peer is gone: they wait as long. The first on a
  // GPU makes what NCCL needs there, which takes seconds.
  static constexpr std::chrono::seconds kTimeout{15};

  void SetUp() override { Form(*DeviceMesh::Create({{"tp", 2}})); }

  // Skips the test where this machine has too few GPUs for it.
  void Form(const DeviceMesh& mesh) {
    mesh_ = mesh;
    ++epoch_;
    auto store = std::make_shared<FakeGangStore>();
    while (static_cast<int>(executors_.size()) < mesh.size()) {
      const int rank = static_cast<int>(executors_.size());
      executors_.push_back(*MakeTorchExecutor({.device = DeviceForTest(rank),
                                               .transport = TransportForTest(),
                                               .weights_root = weights_ / "",
                                               .threads = 1}));
    }
    std::vector<absl::Status> formed(mesh.size());
    ForEachRank([&](int rank) {
      formed[rank] = executors_[rank]->JoinGang({.deployment = "deployments/d",
                                                 .epoch = epoch_,
                                                 .rank = rank,
                                                 .mesh = mesh,
                                                 .timeout = kTimeout},
                                                store);
    });
    if (TooFewGpus(formed[0], mesh.size())) GTEST_SKIP() << formed[0];
    EXPECT_THAT(formed, testing::Each(IsOk()));
  }

  void ForEachRank(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      threads.emplace_back(body, rank);
    }
    for (std::thread& thread : threads) thread.join();
  }

  // net1 and net2 of TwoLinears, from rank 1.
  void Materialize() {
    StageOn(1, "parameter:net1.weight", F32({3, 2}, {1, 2, 3, 4, 5, 6}));
    StageOn(1, "parameter:net2.weight", F32({2, 3}, {1, 0, 1, 0, 1, 2}));
    Materialize(TwoWeights(), testing::ElementsAre(CollectiveCount{
                                  "materialize", "scatter", 2, 64}));
  }
  // On every rank. The first that fails ends the wait of those that count on
  // it, as a coordinator would.
  void Materialize(
      const MaterializeSpec& spec,
      const testing::Matcher<std::vector<CollectiveCount>>& counts) {
    ForEachRank([&](int rank) {
      const auto ran = executors_[rank]->Materialize(spec, nullptr);
      if (!ran.ok()) {
        for (const auto& executor : executors_) executor->Abort("one failed");
      }
      ASSERT_THAT(ran, IsOk());
      EXPECT_THAT(ran->counts, counts);
    });
  }

  void Load(const ShardedProgram& program) {
    ForEachRank([&](int rank) {
      EXPECT_THAT(executors_[rank]->LoadProgram("p", program), IsOk());
    });
  }

  void StageOn(int rank, const std::string& key, const HostTensor& tensor) {
    ASSERT_THAT(executors_[rank]->Stage(key, tensor), IsOk());
  }

  // Runs "p" on one input, everywhere. Rank 0's result.
  RunResult Run(RunMode mode, const HostTensor& x, bool accumulate = false) {
    return Run({.program = "p",
                .mode = mode,
                .inputs = {"upload:x"},
                .accumulate = accumulate},
               x);
  }
  RunResult Run(const RunSpec& spec, const HostTensor& x) {
    std::vector<RunResult> results(mesh_.size());
    ForEachRank([&](int rank) {
      StageOn(rank, "upload:x", x);
      auto result = executors_[rank]->Run(spec);
      ASSERT_THAT(result, IsOk());
      results[rank] = *result;
    });
    for (const RunResult& result : results) {
      EXPECT_EQ(result.gradient_norm, results[0].gradient_norm);
    }
    return results[0];
  }
  RunResult TrainWithNorm(bool accumulate = false) {
    return Run({.program = "p",
                .mode = RunMode::kTrain,
                .inputs = {"upload:x"},
                .accumulate = accumulate,
                .gradient_norm = true},
               F32({1, 2}, {1, 10}));
  }
  RunResult Norm() {
    return Run({.mode = RunMode::kNorm}, F32({1, 2}, {1, 10}));
  }
  RunResult Train(bool accumulate = false) {
    return Run(RunMode::kTrain, F32({1, 2}, {1, 10}), accumulate);
  }
  void Commit(const std::optional<Hyperparameters>& values,
              std::optional<double> clip_norm = std::nullopt) {
    for (const auto& executor : executors_) {
      ASSERT_THAT(CommitOn(*executor, values, clip_norm), IsOk());
    }
  }
  static absl::Status CommitOn(Executor& executor,
                               const std::optional<Hyperparameters>& values,
                               std::optional<double> clip_norm = std::nullopt) {
    std::optional<OptimizerOptions> optimizer;
    if (values.has_value()) optimizer = OptimizerOptions{.values = *values};
    return executor.Commit(optimizer, clip_norm);
  }

  std::vector<float> Read(int rank, const TensorKey& key) {
    auto tensor = executors_[rank]->Read(key);
    EXPECT_THAT(tensor, IsOk());
    return tensor.ok() ? Floats(tensor->local) : std::vector<float>();
  }

  const TestFolder weights_;  // that executors may read from
  DeviceMesh mesh_;
  uint64_t epoch_ = 0;
  std::vector<std::unique_ptr<Executor>> executors_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TORCH_EXECUTOR_FOR_TEST_H_
