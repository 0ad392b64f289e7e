// The metrics of a Shardplane process: a fixed table of Prometheus families.
#ifndef SHARDPLANE_TELEMETRY_METRICS_H_
#define SHARDPLANE_TELEMETRY_METRICS_H_

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace shardplane {

// One enumerator a family; its name, help text, labels and buckets are the row
// with the same number in telemetry/metric_families.h. The comment gives the
// labels in the order in which values are passed.
enum class Counter {
  kSteps,                  // {phase, result}
  kCollectives,            // {collective, phase}
  kCollectiveBytes,        // {collective, transport}
  kProcessGroups,          // {transport}
  kStepStreams,            // {transport}
  kMaterializeBytes,       // {op}
  kPlanUnmatchedPatterns,  // {}
  kWorkerLost,             // {reason}
  kEvents,                 // {reason}
  kGrpcServerCallStarted,  // {grpc_method}
};

enum class Gauge {
  kBuildInfo,                // {version, component}; set by the constructor
  kWorkers,                  // {state}
  kCoordinatorEpoch,         // {}
  kCoordinatorIsLeader,      // {}
  kDeployments,              // {state}
  kDeploymentLastStep,       // {deployment}
  kOperations,               // {kind, state}
  kWatchStreams,             // {}
  kDeviceMemoryUsed,         // {}, bytes
  kDeviceMemoryTotal,        // {}, bytes
  kDeviceMemoryTaken,        // {gpu}, bytes
  kDeviceUtilization,        // {gpu}, a ratio
  kDeviceMemoryUtilization,  // {gpu}, a ratio
};

enum class Histogram {
  kStepDuration,            // {phase}, seconds
  kMaterializeDuration,     // {}, seconds
  kPlanResolve,             // {}, seconds
  kStepDispatch,            // {}, seconds
  kStepOverhead,            // {}, a ratio
  kCollectiveWait,          // {collective}, seconds
  kGrpcServerCallDuration,  // {grpc_method, grpc_status}, seconds
};

// The values of a family's labels, in the order of its row:
//   metrics.Add(Counter::kSteps, {"train", "ok"});
using LabelValues = std::initializer_list<absl::string_view>;

// A process's metrics, owned by main() and shared by reference. Every method
// may be called from any thread. Nothing here can fail: metrics never stop the
// work that they count.
//
// Families without labels are shown as 0 from the start, so that a query finds
// them; a family with labels shows what has happened. A family keeps at most
// kMaxSeries label combinations; further ones count under "other".
class Metrics {
 public:
  static constexpr int kMaxSeries = 200;

  struct Options {
    std::string component;        // "coordinator" or "worker"
    std::string version = "dev";  // shown in shardplane_build_info
  };

  explicit Metrics(const Options& options);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `amount` below 0 counts as 0.
  void Add(Counter counter, LabelValues labels = {}, double amount = 1);
  void Set(Gauge gauge, LabelValues labels, double value);
  // Forgets a series whose subject is gone: it is shown no more, and makes room
  // for another one below kMaxSeries. Nothing where there is none.
  void Remove(Gauge gauge, LabelValues labels);
  void Observe(Histogram histogram, LabelValues labels, absl::Duration value);
  // In the histogram's own unit.
  void Observe(Histogram histogram, LabelValues labels, double value);

  // All families in the text exposition format, process_* included:
  //   shardplane_steps_total{phase="train",result="ok"} 12
  std::string Text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_METRICS_H_
