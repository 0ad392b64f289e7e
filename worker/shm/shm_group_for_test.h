// Shared memory whose ranks are threads of one test.
#ifndef SHARDPLANE_WORKER_SHM_SHM_GROUP_FOR_TEST_H_
#define SHARDPLANE_WORKER_SHM_SHM_GROUP_FOR_TEST_H_

#include <functional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "worker/fake_gang_store.h"
#include "worker/shm/rendezvous.h"

namespace shardplane {

inline void OnEachRank(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// By rank. Throws where the machine gives no memory.
inline std::vector<ShmGroupMemory> ShmGroupForTest(
    int ranks, const ShmRendezvousOptions& options = {}) {
  FakeGangStore store;
  std::vector<ShmGroupMemory> group(ranks);
  OnEachRank(ranks, [&](int rank) {
    auto joined = JoinShmGroup(store, "group", rank, ranks, options);
    group[rank] = std::get<ShmGroupMemory>(std::move(joined).value());
  });
  return group;
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_GROUP_FOR_TEST_H_
