#include "worker/shm/waiting.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>

namespace shardplane {
namespace {

using Clock = std::chrono::steady_clock;

// A look costs nanoseconds, the clock some more: once in so many looks.
constexpr int kLooksPerClock = 32;
// Longer than what another rank does before it waits itself.
constexpr std::chrono::nanoseconds kSlowYield = std::chrono::milliseconds(1);
constexpr int kFirstPenalty = 16;
constexpr int kMaxPenalty = 4096;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int CoresOfThisProcess() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores)
                                                          : 1;
}

// Shared between processes: not FUTEX_PRIVATE_FLAG.
void FutexWait(std::atomic<uint32_t>& word, uint32_t value,
               std::chrono::nanoseconds limit) {
  const timespec time{.tv_sec = limit.count() / 1'000'000'000,
                      .tv_nsec = limit.count() % 1'000'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, value,
          &time, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT32_MAX,
          nullptr, nullptr, 0);
}

}  // namespace

ShmPatience DefaultPatience(int ranks) {
  using std::chrono::microseconds;
  const bool cores_for_all = ranks <= CoresOfThisProcess();
  return {.spinning = cores_for_all ? microseconds(20) : microseconds(0),
          .yielding = microseconds(100),
          .nap = std::chrono::milliseconds(10)};
}

bool ShmWaiter::Spin(absl::FunctionRef<bool()> ready) const {
  const Clock::time_point start = Clock::now();
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (ready()) return true;
      Pause();
    }
  } while (Clock::now() - start < patience_.spinning);
  return false;
}

bool ShmWaiter::Yield(absl::FunctionRef<bool()> ready) {
  if (without_yielding_ > 0) {
    --without_yielding_;
    return false;
  }
  const Clock::time_point start = Clock::now();
  Clock::time_point before = start;
  do {
    sched_yield();
    const bool is_ready = ready();
    const Clock::time_point after = Clock::now();
    if (after - before > kSlowYield) {
      penalty_ = std::min(2 * penalty_ + kFirstPenalty, kMaxPenalty);
      without_yielding_ = penalty_;
      return is_ready;
    }
    if (is_ready) {
      penalty_ /= 2;
      return true;
    }
    before = after;
  } while (before - start < patience_.yielding);
  return false;
}

void ShmWaiter::AwaitOnce(ShmControl& control,
                          absl::FunctionRef<bool()> ready) {
  if (ready()) return;
  if (patience_.spinning.count() > 0 && Spin(ready)) return;
  if (patience_.yielding.count() > 0 && Yield(ready)) return;
  // Whoever changes something looks at `sleeping` afterwards, and we look at
  // the change after `sleeping`: one of the two sees the other.
  const uint32_t bell = control.bell.load();
  control.sleeping.store(1);
  if (!ready()) FutexWait(control.bell, bell, patience_.nap);
  control.sleeping.store(0);
}

void RingIfAsleep(ShmControl& control) {
  if (control.sleeping.load() == 0) return;
  control.sleeping.store(0);
  control.bell.fetch_add(1);
  FutexWake(control.bell);
}

}  // namespace shardplane
