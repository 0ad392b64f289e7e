#include "worker/shm/core_balance.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

namespace shardplane {
namespace {

// Between two looks at the others. A move costs some 10 microseconds.
constexpr std::chrono::milliseconds kInterval{1};

std::vector<int> CoresOf(const cpu_set_t& set) {
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

// To that core of the set, and free again within it.
void GoTo(int core, const cpu_set_t& allowed) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  if (sched_setaffinity(0, sizeof(one), &one) != 0) return;
  sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace

int CoreToGoTo(int rank, absl::Span<const int> cores,
               absl::Span<const int> allowed) {
  const int own = cores[rank];
  if (own < 0 || allowed.empty()) return -1;
  const auto ranks_on = [&](int core) {
    return std::count(cores.begin(), cores.end(), core);
  };
  const auto above = cores.subspan(rank + 1);
  if (std::find(above.begin(), above.end(), own) != above.end()) return -1;
  const int emptiest = *std::min_element(
      allowed.begin(), allowed.end(),
      [&](int a, int b) { return ranks_on(a) < ranks_on(b); });
  return ranks_on(own) >= ranks_on(emptiest) + 2 ? emptiest : -1;
}

void CoreBalance::Note(const ShmSegment& segment, int rank) {
  segment.control(rank).core.store(sched_getcpu() + 1,
                                   std::memory_order_relaxed);
}

void CoreBalance::Look(const ShmSegment& segment, int rank) {
  Note(segment, rank);
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + kInterval;
  std::array<int, kMaxShmRanks> cores;
  const int ranks = segment.sizes().ranks;
  for (int i = 0; i < ranks; ++i) {
    cores[i] = static_cast<int>(
                   segment.control(i).core.load(std::memory_order_relaxed)) -
               1;
  }
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  const int core = CoreToGoTo(rank, absl::MakeConstSpan(cores.data(), ranks),
                              CoresOf(allowed));
  if (core < 0) return;
  GoTo(core, allowed);
  Note(segment, rank);
}

}  // namespace shardplane
