// What a worker computes in some training steps, recorded for who asks while it
// trains.
#ifndef SHARDPLANE_WORKER_STEP_PROFILER_H_
#define SHARDPLANE_WORKER_STEP_PROFILER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// Records operators and kernels. For one thread.
class Profiler {
 public:
  virtual ~Profiler() = default;
  virtual absl::Status Begin() = 0;
  // All since Begin, which has succeeded, as JSON in the Trace Event Format,
  // which Perfetto and chrome://tracing show.
  virtual absl::StatusOr<std::string> End() = 0;
};

// Thread-safe.
class StepProfiler {
 public:
  static constexpr int kMaxSteps = 100;  // a trace is megabytes a step

  explicit StepProfiler(std::unique_ptr<Profiler> profiler);

  // Waits until the next `steps` training steps are over, `timeout` at most,
  // and returns their trace. InvalidArgument: no such number of steps.
  // ResourceExhausted: another call waits. DeadlineExceeded: the worker takes
  // fewer steps in that time. Unavailable: after Close. Else what the Profiler
  // answers.
  absl::StatusOr<std::string> Profile(int steps, absl::Duration timeout);

  // The worker ends: whoever waits is answered at once, and who comes.
  void Close();

  // Around each training step, by the one thread that takes them.
  void StepBegins();
  void StepEnds();

 private:
  struct Request {
    int left = 0;  // steps
    bool begun = false;
    std::optional<absl::StatusOr<std::string>> trace;
  };

  absl::Mutex mutex_;
  const std::unique_ptr<Profiler> profiler_ ABSL_PT_GUARDED_BY(mutex_);
  std::shared_ptr<Request> request_ ABSL_GUARDED_BY(mutex_);  // not over
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// A training step, which may be profiled, while it lives. `profiler`: null
// where nobody can ask.
class ProfiledStep {
 public:
  explicit ProfiledStep(StepProfiler* profiler) : profiler_(profiler) {
    if (profiler_ != nullptr) profiler_->StepBegins();
  }
  ~ProfiledStep() {
    if (profiler_ != nullptr) profiler_->StepEnds();
  }
  ProfiledStep(const ProfiledStep&) = delete;
  ProfiledStep& operator=(const ProfiledStep&) = delete;

 private:
  StepProfiler* const profiler_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_STEP_PROFILER_H_
