#include "worker/gpu_metrics.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

// One figure of several that came, or did not, together.
template <typename T, typename Field>
absl::StatusOr<double> Of(const absl::StatusOr<T>& figures, Field field) {
  if (!figures.ok()) return figures.status();
  return static_cast<double>((*figures).*field);
}

}  // namespace

void GpuMetrics::Measure() {
  absl::MutexLock lock(&mutex_);
  if (!std::exchange(loaded_, true)) {
    absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Load(options_.library);
    LogOnce(nvml.status());
    if (nvml.ok()) nvml_ = *std::move(nvml);
  }
  if (nvml_ == nullptr) return;
  const auto utilization = nvml_->Utilization(options_.uuid);
  Show(Gauge::kDeviceUtilization, Of(utilization, &GpuUtilization::kernels));
  Show(Gauge::kDeviceMemoryUtilization,
       Of(utilization, &GpuUtilization::memory));
  Show(Gauge::kDeviceMemoryTaken,
       Of(nvml_->Memory(options_.uuid), &GpuMemory::used));
}

void GpuMetrics::Show(Gauge gauge, const absl::StatusOr<double>& figure) {
  if (figure.ok()) {
    options_.metrics->Set(gauge, {options_.uuid}, *figure);
  } else {
    options_.metrics->Remove(gauge, {options_.uuid});
    LogOnce(figure.status());
  }
}

void GpuMetrics::LogOnce(const absl::Status& status) {
  if (status.ok()) return;
  const std::string text(status.message());
  if (!logged_.insert(text).second || !options_.log) return;
  options_.log(absl::StrCat("figures of the GPU are not shown: ", text));
}

}  // namespace shardplane
