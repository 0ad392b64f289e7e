#include "telemetry/metrics.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "prometheus/client_metric.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "telemetry/metric_families.h"
#include "telemetry/process_metrics.h"

namespace shardplane {
namespace {

constexpr char kOther[] = "other";

const prometheus::Histogram::BucketBoundaries& Boundaries(
    MetricBuckets buckets) {
  static const auto& fast = *new prometheus::Histogram::BucketBoundaries{
      0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
      0.05,   0.1,    0.2,    0.5,   1,     2,     5,    10};
  static const auto& slow = *new prometheus::Histogram::BucketBoundaries{
      0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600};
  static const auto& ratio = *new prometheus::Histogram::BucketBoundaries{
      0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1};
  static const auto& none = *new prometheus::Histogram::BucketBoundaries{};
  switch (buckets) {
    case MetricBuckets::kFast:
      return fast;
    case MetricBuckets::kSlow:
      return slow;
    case MetricBuckets::kRatio:
      return ratio;
    case MetricBuckets::kNone:
      return none;
  }
  return none;
}

// One family and the series that it has so far. Thread-safe.
template <typename T>
class SeriesTable {
 public:
  SeriesTable(const MetricFamilyRow& row, prometheus::Registry& registry)
      : row_(row), family_(Build(row, registry)) {
    for (const absl::string_view label : row.labels) {
      num_labels_ += label.empty() ? 0 : 1;
    }
  }

  // Calls change(T&) for the series, which is made if it is new. Under the
  // lock, so that nobody removes it meanwhile.
  template <typename Change>
  void With(LabelValues labels, Change change) {
    std::vector<std::string> values = Values(labels);
    absl::MutexLock lock(&mutex_);
    auto found = series_.find(values);
    if (found == series_.end() && series_.size() >= Metrics::kMaxSeries) {
      values.assign(num_labels_, kOther);
      found = series_.find(values);
    }
    if (found == series_.end()) {
      T& added = AddToFamily(values);
      found = series_.emplace(std::move(values), &added).first;
    }
    change(*found->second);
  }

  void Remove(LabelValues labels) {
    absl::MutexLock lock(&mutex_);
    const auto found = series_.find(Values(labels));
    if (found == series_.end()) return;
    family_.Remove(found->second);
    series_.erase(found);
  }

  // Shows a family without labels as 0.
  void ShowIfOwned(absl::string_view component) {
    const bool owned =
        row_.owner == MetricOwner::kBoth ||
        (row_.owner == MetricOwner::kCoordinator) == (component != "worker");
    if (owned && num_labels_ == 0) With({}, [](T&) {});
  }

 private:
  // A caller that passes too few or too many is wrong, but is not stopped.
  std::vector<std::string> Values(LabelValues labels) const {
    std::vector<std::string> values(labels.begin(), labels.end());
    values.resize(num_labels_, kOther);
    return values;
  }

  static prometheus::Family<T>& Build(const MetricFamilyRow& row,
                                      prometheus::Registry& registry) {
    const std::string name(row.name);
    const std::string help(row.help);
    if constexpr (std::is_same_v<T, prometheus::Counter>) {
      return prometheus::BuildCounter().Name(name).Help(help).Register(
          registry);
    } else if constexpr (std::is_same_v<T, prometheus::Gauge>) {
      return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
    } else {
      return prometheus::BuildHistogram().Name(name).Help(help).Register(
          registry);
    }
  }

  T& AddToFamily(const std::vector<std::string>& values)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    prometheus::Labels labels;
    for (size_t i = 0; i < num_labels_; ++i) {
      labels.emplace(std::string(row_.labels[i]), values[i]);
    }
    if constexpr (std::is_same_v<T, prometheus::Histogram>) {
      return family_.Add(labels, Boundaries(row_.buckets));
    } else {
      return family_.Add(labels);
    }
  }

  const MetricFamilyRow row_;
  prometheus::Family<T>& family_;
  size_t num_labels_ = 0;
  absl::Mutex mutex_;
  absl::btree_map<std::vector<std::string>, T*> series_ ABSL_GUARDED_BY(mutex_);
};

template <typename T>
using SeriesTables = std::vector<std::unique_ptr<SeriesTable<T>>>;

template <typename T, size_t kRows>
SeriesTables<T> MakeTables(const std::array<MetricFamilyRow, kRows>& rows,
                           absl::string_view component,
                           prometheus::Registry& registry) {
  SeriesTables<T> tables;
  for (const MetricFamilyRow& row : rows) {
    tables.push_back(std::make_unique<SeriesTable<T>>(row, registry));
    tables.back()->ShowIfOwned(component);
  }
  return tables;
}

// The registry keeps series in a hash map; text has a fixed order.
void Sort(std::vector<prometheus::MetricFamily>& families) {
  for (prometheus::MetricFamily& family : families) {
    std::sort(
        family.metric.begin(), family.metric.end(),
        [](const prometheus::ClientMetric& a,
           const prometheus::ClientMetric& b) { return a.label < b.label; });
  }
}

}  // namespace

struct Metrics::State {
  explicit State(absl::string_view component)
      : counters(
            MakeTables<prometheus::Counter>(kCounterRows, component, registry)),
        gauges(MakeTables<prometheus::Gauge>(kGaugeRows, component, registry)),
        histograms(MakeTables<prometheus::Histogram>(kHistogramRows, component,
                                                     registry)) {}

  prometheus::Registry registry;
  SeriesTables<prometheus::Counter> counters;
  SeriesTables<prometheus::Gauge> gauges;
  SeriesTables<prometheus::Histogram> histograms;
};

Metrics::Metrics(const Options& options)
    : state_(std::make_unique<State>(options.component)) {
  Set(Gauge::kBuildInfo, {options.version, options.component}, 1);
}

Metrics::~Metrics() = default;

void Metrics::Add(Counter counter, LabelValues labels, double amount) {
  state_->counters[static_cast<size_t>(counter)]->With(
      labels, [amount](prometheus::Counter& series) {
        series.Increment(std::max(amount, 0.0));
      });
}

void Metrics::Set(Gauge gauge, LabelValues labels, double value) {
  state_->gauges[static_cast<size_t>(gauge)]->With(
      labels, [value](prometheus::Gauge& series) { series.Set(value); });
}

void Metrics::Remove(Gauge gauge, LabelValues labels) {
  state_->gauges[static_cast<size_t>(gauge)]->Remove(labels);
}

void Metrics::Observe(Histogram histogram, LabelValues labels,
                      absl::Duration value) {
  Observe(histogram, labels, absl::ToDoubleSeconds(value));
}

void Metrics::Observe(Histogram histogram, LabelValues labels, double value) {
  state_->histograms[static_cast<size_t>(histogram)]->With(
      labels,
      [value](prometheus::Histogram& series) { series.Observe(value); });
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = state_->registry.Collect();
  std::vector<prometheus::MetricFamily> process = CollectProcessMetrics();
  std::move(process.begin(), process.end(), std::back_inserter(families));
  Sort(families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace shardplane
