// The table of metric families. Names, labels and units are an interface:
// dashboards and alerts rely on them (tests/deploy checks that they agree).
#ifndef SHARDPLANE_TELEMETRY_METRIC_FAMILIES_H_
#define SHARDPLANE_TELEMETRY_METRIC_FAMILIES_H_

#include <array>

#include "absl/strings/string_view.h"

namespace shardplane {

// Which component shows a family without labels as 0 from its start.
enum class MetricOwner { kBoth, kCoordinator, kWorker };

// Buckets of a histogram: in seconds, kFast from 0.1 ms to 10 s, kSlow from
// 10 ms to 10 min; kRatio from 0.01 to 1, without a unit.
enum class MetricBuckets { kNone, kFast, kSlow, kRatio };

struct MetricFamilyRow {
  absl::string_view name;
  absl::string_view help;
  std::array<absl::string_view, 2> labels = {};  // empty names: fewer labels
  MetricOwner owner = MetricOwner::kBoth;
  MetricBuckets buckets = MetricBuckets::kNone;
};

// By Counter.
inline constexpr std::array kCounterRows = {
    MetricFamilyRow{"shardplane_steps_total",
                    "Numbered actions and forwards, by phase and result.",
                    {"phase", "result"}},
    MetricFamilyRow{"shardplane_collectives_total",
                    "Collectives that this rank issued.",
                    {"collective", "phase"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_collective_bytes_total",
                    "Bytes of the larger buffer of each collective issued, by "
                    "what carries it.",
                    {"collective", "transport"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_process_groups_total",
                    "Groups that this rank has joined, by what carries their "
                    "collectives.",
                    {"transport"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_step_streams_total",
                    "Streams of training steps that this worker has been sent, "
                    "by what carries them.",
                    {"transport"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_materialize_bytes_total",
                    "Bytes moved to place parameters on the ranks, or read "
                    "there from files.",
                    {"op"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_plan_unmatched_patterns_total",
                    "Patterns of plans that matched no module.",
                    {},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_worker_lost_total",
                    "Workers declared lost, by reason.",
                    {"reason"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_events_total",
                    "Events that the coordinator has recorded, by reason.",
                    {"reason"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"grpc_server_call_started_total",
                    "RPCs that a server began to handle.",
                    {"grpc_method"}},
};

// By Gauge.
inline constexpr std::array kGaugeRows = {
    MetricFamilyRow{"shardplane_build_info",
                    "1; the labels say what runs.",
                    {"version", "component"}},
    MetricFamilyRow{"shardplane_workers",
                    "Workers known to the coordinator, by state.",
                    {"state"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_coordinator_epoch",
                    "The newest gang epoch that was handed out.",
                    {},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_coordinator_is_leader",
                    "1 where this coordinator decides, 0 where it stands by.",
                    {},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_deployments",
                    "Deployments known to the coordinator, by state.",
                    {"state"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_deployment_last_step",
                    "Number of a deployment's last accepted step; gone when "
                    "the deployment is.",
                    {"deployment"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_operations",
                    "Operations that the coordinator keeps, by kind and state.",
                    {"kind", "state"},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_watch_streams",
                    "Watches that are open.",
                    {},
                    MetricOwner::kCoordinator},
    MetricFamilyRow{"shardplane_device_memory_used_bytes",
                    "Memory of tensors on this worker's device.",
                    {},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_device_memory_total_bytes",
                    "Memory that the device has; on a CPU, what the process "
                    "may take.",
                    {},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_device_memory_taken_bytes",
                    "Memory of this worker's GPU that is taken, by all "
                    "processes and by the driver.",
                    {"gpu"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_device_utilization_ratio",
                    "Share of NVML's last sample period, of a second at most, "
                    "in which a kernel of any process ran on this worker's "
                    "GPU.",
                    {"gpu"},
                    MetricOwner::kWorker},
    MetricFamilyRow{"shardplane_device_memory_utilization_ratio",
                    "Share of NVML's last sample period, of a second at most, "
                    "in which any process read or wrote memory of this "
                    "worker's GPU.",
                    {"gpu"},
                    MetricOwner::kWorker},
};

// By Histogram.
inline constexpr std::array kHistogramRows = {
    MetricFamilyRow{"shardplane_step_duration_seconds",
                    "Time of a step: of all ranks and the dispatch on the "
                    "coordinator; of its own rank on a worker, where a "
                    "training step's commit is a phase of its own.",
                    {"phase"},
                    MetricOwner::kBoth,
                    MetricBuckets::kFast},
    MetricFamilyRow{"shardplane_materialize_duration_seconds",
                    "Time to place a deployment's parameters on its ranks.",
                    {},
                    MetricOwner::kBoth,
                    MetricBuckets::kSlow},
    MetricFamilyRow{"shardplane_plan_resolve_seconds",
                    "Time to resolve a plan against a module tree.",
                    {},
                    MetricOwner::kCoordinator,
                    MetricBuckets::kFast},
    MetricFamilyRow{"shardplane_step_dispatch_seconds",
                    "Time from a step's acceptance until all its ranks have "
                    "been told.",
                    {},
                    MetricOwner::kCoordinator,
                    MetricBuckets::kFast},
    MetricFamilyRow{"shardplane_step_overhead_ratio",
                    "Share of a step's time in which its slowest rank was in "
                    "neither forward, backward nor commit.",
                    {},
                    MetricOwner::kCoordinator,
                    MetricBuckets::kRatio},
    MetricFamilyRow{"shardplane_collective_wait_seconds",
                    "Time of a step that a rank stood in collectives of one "
                    "kind, waiting for other ranks included.",
                    {"collective"},
                    MetricOwner::kWorker,
                    MetricBuckets::kFast},
    MetricFamilyRow{"grpc_server_call_duration_seconds",
                    "Time from the start of an RPC to its status.",
                    {"grpc_method", "grpc_status"},
                    MetricOwner::kBoth,
                    MetricBuckets::kFast},
};

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_METRIC_FAMILIES_H_
