// What ran when in a gang's last steps.
#ifndef SHARDPLANE_WORKER_STEP_TIMELINES_H_
#define SHARDPLANE_WORKER_STEP_TIMELINES_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/timeline.h"

namespace shardplane {

// One training step on one rank. In nanoseconds; times by this host's clock.
struct StepTimeline {
  uint64_t step = 0;
  std::string program;
  std::string traceparent;    // of the client's call; or ""
  int64_t received_unix = 0;  // when the step came
  RunTimeline run;
  int64_t run_nanos = 0;     // from the run's beginning
  int64_t agree_nanos = 0;   // from then: all ranks agree
  int64_t update_nanos = 0;  // from then: gradients current, optimizer
  friend bool operator==(const StepTimeline&, const StepTimeline&) = default;
};

// The last of them, as many as fit: at most `steps`, and `bytes` of spans, but
// the last one always. Thread-safe.
class StepTimelines {
 public:
  static constexpr size_t kSteps = 64;
  static constexpr size_t kBytes = size_t{8} << 20;
  explicit StepTimelines(size_t steps = kSteps, size_t bytes = kBytes)
      : max_steps_(steps), max_bytes_(bytes) {}

  void Add(StepTimeline timeline);
  // NotFound, reason TIMELINE_NOT_KEPT.
  absl::StatusOr<StepTimeline> Find(uint64_t step) const;
  void Clear();

 private:
  const size_t max_steps_;
  const size_t max_bytes_;
  mutable absl::Mutex mutex_;
  std::deque<StepTimeline> kept_ ABSL_GUARDED_BY(mutex_);  // oldest first
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_STEP_TIMELINES_H_
