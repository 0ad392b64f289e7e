// Ranks that are threads of one test, over an in-memory store.
#ifndef SHARDPLANE_WORKER_GANG_FOR_TEST_H_
#define SHARDPLANE_WORKER_GANG_FOR_TEST_H_

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "common/device_mesh.h"
#include "worker/collectives.h"
#include "worker/fake_gang_store.h"
#include "worker/process_groups.h"

namespace shardplane {

// Runs `body` for each rank, each on a thread of its own.
inline void ForEachRank(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// A gang whose process groups are connected. Example:
//   GangForTest gang({{"tp", 3}});
//   gang.Run([](int rank, Communicator& communicator) { ... });
class GangForTest {
 public:
  explicit GangForTest(std::vector<MeshDim> dims)
      : mesh_(*DeviceMesh::Create(std::move(dims))), groups_(mesh_.size()) {
    auto store = std::make_shared<FakeGangStore>();
    ForEachRank(mesh_.size(), [&](int rank) {
      groups_[rank] =
          *ProcessGroups::Create({.deployment = "deployments/d",
                                  .epoch = 1,
                                  .rank = rank,
                                  .mesh = mesh_,
                                  .timeout = std::chrono::seconds(20)},
                                 store, {});
    });
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      communicators_.push_back(
          std::make_unique<Communicator>(groups_[rank].get(), mesh_, rank));
    }
  }

  void Run(const std::function<void(int, Communicator&)>& body) {
    ForEachRank(mesh_.size(),
                [&](int rank) { body(rank, *communicators_[rank]); });
  }

  const DeviceMesh& mesh() const { return mesh_; }
  ProcessGroups& groups(int rank) { return *groups_[rank]; }

 private:
  DeviceMesh mesh_;
  std::vector<std::unique_ptr<ProcessGroups>> groups_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_FOR_TEST_H_
