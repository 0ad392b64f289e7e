#include "telemetry/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"

namespace shardplane {
namespace {

// Positions in /proc/PID/stat after the name, as proc(5) numbers them less 3.
constexpr size_t kUserTicks = 11;
constexpr size_t kSystemTicks = 12;
constexpr size_t kThreads = 17;
constexpr size_t kStartTicks = 19;
constexpr size_t kVirtualBytes = 20;
constexpr size_t kResidentPages = 21;

std::string ReadFile(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Seconds since 1970; 0 if the kernel does not say.
double BootTime() {
  const std::string stat = ReadFile("/proc/stat");
  for (absl::string_view line : absl::StrSplit(stat, '\n')) {
    const std::pair<absl::string_view, absl::string_view> words =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    double seconds = 0;
    if (words.first == "btime" && absl::SimpleAtod(words.second, &seconds)) {
      return seconds;
    }
  }
  return 0;
}

double OpenFileDescriptors() {
  std::error_code error;
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  double count = 0;
  while (!error && entry != std::filesystem::directory_iterator()) {
    ++count;
    entry.increment(error);
  }
  // The directory itself is open while it is counted.
  return count - 1;
}

void Append(prometheus::MetricType type, const char* name, const char* help,
            double value, std::vector<prometheus::MetricFamily>* families) {
  prometheus::ClientMetric metric;
  metric.counter.value = value;
  metric.gauge.value = value;
  families->push_back({name, help, type, {metric}});
}

}  // namespace

bool ParseProcessStat(absl::string_view line, ProcessStat* stat) {
  const size_t name_end = line.rfind(')');
  if (name_end == absl::string_view::npos) return false;
  const std::vector<absl::string_view> fields = absl::StrSplit(
      line.substr(name_end + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (fields.size() <= kResidentPages) return false;
  double system_ticks = 0;
  if (!absl::SimpleAtod(fields[kUserTicks], &stat->cpu_ticks) ||
      !absl::SimpleAtod(fields[kSystemTicks], &system_ticks) ||
      !absl::SimpleAtod(fields[kThreads], &stat->threads) ||
      !absl::SimpleAtod(fields[kStartTicks], &stat->start_ticks) ||
      !absl::SimpleAtod(fields[kVirtualBytes], &stat->virtual_bytes) ||
      !absl::SimpleAtod(fields[kResidentPages], &stat->resident_pages)) {
    return false;
  }
  stat->cpu_ticks += system_ticks;
  return true;
}

std::vector<prometheus::MetricFamily> CollectProcessMetrics() {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  const double ticks_per_second = sysconf(_SC_CLK_TCK);
  ProcessStat stat;
  if (ParseProcessStat(ReadFile("/proc/self/stat"), &stat)) {
    Append(MetricType::Counter, "process_cpu_seconds_total",
           "User and system CPU time.", stat.cpu_ticks / ticks_per_second,
           &families);
    Append(MetricType::Gauge, "process_resident_memory_bytes",
           "Resident memory.", stat.resident_pages * sysconf(_SC_PAGESIZE),
           &families);
    Append(MetricType::Gauge, "process_virtual_memory_bytes", "Virtual memory.",
           stat.virtual_bytes, &families);
    Append(MetricType::Gauge, "process_threads", "Threads.", stat.threads,
           &families);
    Append(MetricType::Gauge, "process_start_time_seconds",
           "Start of the process, in seconds since 1970.",
           BootTime() + stat.start_ticks / ticks_per_second, &families);
  }
  Append(MetricType::Gauge, "process_open_fds", "Open file descriptors.",
         OpenFileDescriptors(), &families);
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Append(MetricType::Gauge, "process_max_fds", "File descriptors allowed.",
           static_cast<double>(limit.rlim_cur), &families);
  }
  return families;
}

}  // namespace shardplane
