// Prometheus's standard process_* metrics, read from /proc at each scrape.
#ifndef SHARDPLANE_TELEMETRY_PROCESS_METRICS_H_
#define SHARDPLANE_TELEMETRY_PROCESS_METRICS_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "prometheus/metric_family.h"

namespace shardplane {

// CPU seconds, resident and virtual memory, open and allowed file descriptors,
// threads and start time of this process. What cannot be read is left out.
std::vector<prometheus::MetricFamily> CollectProcessMetrics();

// The fields of a line of /proc/PID/stat that the metrics need.
struct ProcessStat {
  double cpu_ticks = 0;  // user and system
  double threads = 0;
  double start_ticks = 0;  // after boot
  double virtual_bytes = 0;
  double resident_pages = 0;

  friend bool operator==(const ProcessStat&, const ProcessStat&) = default;
};

// False if `line` is malformed. A process's name may hold spaces and ")":
//   "7 (a) b) S 1 ..." is process 7 named "a) b".
bool ParseProcessStat(absl::string_view line, ProcessStat* stat);

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_PROCESS_METRICS_H_
