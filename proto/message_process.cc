#include "proto/message_process.h"

#include <malloc.h>

#include "absl/synchronization/mutex.h"

namespace shardplane {

void SetUpMessageProcess() {
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace shardplane
