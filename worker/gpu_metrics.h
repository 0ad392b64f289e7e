// What NVML tells of a worker's GPU, as gauges.
#ifndef SHARDPLANE_WORKER_GPU_METRICS_H_
#define SHARDPLANE_WORKER_GPU_METRICS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "telemetry/metrics.h"
#include "worker/nvml.h"

namespace shardplane {

// A figure that NVML does not tell is shown not at all, rather than as 0; why,
// stands in the log once. Thread-safe.
class GpuMetrics {
 public:
  struct Options {
    std::string uuid;            // of the GPU, as GpuUuid writes it
    Metrics* metrics = nullptr;  // borrowed
    std::string library = kNvmlLibrary;
    std::function<void(absl::string_view)> log;
  };
  explicit GpuMetrics(Options options) : options_(std::move(options)) {}

  // Before the metrics are read. The first call loads NVML.
  void Measure();

 private:
  // A figure, or why there is none.
  void Show(Gauge gauge, const absl::StatusOr<double>& figure)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogOnce(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  absl::Mutex mutex_;
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Nvml> nvml_ ABSL_GUARDED_BY(mutex_);  // null: there is none
  absl::btree_set<std::string> logged_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GPU_METRICS_H_
