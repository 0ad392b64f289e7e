// Ranks that are threads of one test, over an in-memory store, on
// DeviceForTest.
#ifndef SHARDPLANE_WORKER_GANG_FOR_TEST_H_
#define SHARDPLANE_WORKER_GANG_FOR_TEST_H_

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "c10/core/Device.h"
#include "c10/core/DeviceGuard.h"
#include "common/device_mesh.h"
#include "worker/collectives.h"
#include "worker/device_for_test.h"
#include "worker/fake_gang_store.h"
#include "worker/process_groups.h"
#include "worker/transport_for_test.h"

namespace shardplane {

// Runs `body` for each rank, each on a thread of its own.
inline void ForEachRank(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// A gang whose process groups are connected, if status() is OK. Example:
//   GangForTest gang({{"tp", 3}});
//   gang.Run([](int rank, Communicator& communicator) { ... });
class GangForTest {
 public:
  explicit GangForTest(std::vector<MeshDim> dims)
      : mesh_(*DeviceMesh::Create(std::move(dims))), groups_(mesh_.size()) {
    auto store = std::make_shared<FakeGangStore>();
    std::vector<absl::Status> statuses(mesh_.size());
    ForEachRank(mesh_.size(), [&](int rank) {
      const c10::Device device(DeviceForTest(rank));
      const c10::DeviceGuard guard(device);
      auto groups = ProcessGroups::Create(
          {.deployment = "deployments/d",
           .epoch = 1,
           .rank = rank,
           .mesh = mesh_,
           .timeout = std::chrono::seconds(20)},
          store, {.device = device, .transport = TransportForTest()});
      statuses[rank] = groups.status();
      if (groups.ok()) groups_[rank] = *std::move(groups);
    });
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      status_.Update(statuses[rank]);
      communicators_.push_back(
          std::make_unique<Communicator>(groups_[rank].get(), mesh_, rank));
      communicators_.back()->set_device(c10::Device(DeviceForTest(rank)));
    }
  }

  // FailedPrecondition: more ranks than GPUs, and NCCL lets them share none.
  const absl::Status& status() const { return status_; }

  void Run(const std::function<void(int, Communicator&)>& body) {
    ForEachRank(mesh_.size(), [&](int rank) {
      const c10::DeviceGuard guard(communicators_[rank]->device());
      body(rank, *communicators_[rank]);
    });
  }

  const DeviceMesh& mesh() const { return mesh_; }
  ProcessGroups& groups(int rank) { return *groups_[rank]; }

 private:
  DeviceMesh mesh_;
  absl::Status status_;
  std::vector<std::unique_ptr<ProcessGroups>> groups_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_FOR_TEST_H_
