#include "worker/nvml.h"

#include <dlfcn.h>

#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// As NVIDIA's NVML API reference (https://docs.nvidia.com/deploy/nvml-api) and
// nvml.h of CUDA 13.0 have it; no driver that CUDA 13 runs on differs.
struct NvmlUtilization {  // nvmlUtilization_t, in percent
  unsigned int gpu;
  unsigned int memory;
};
struct NvmlMemory {  // nvmlMemory_t, version 1, in bytes
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

// nvmlReturn_t
constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;
constexpr int kNoPermission = 4;
constexpr int kNotFound = 6;
constexpr int kLibraryMismatch = 18;

absl::StatusCode CodeOf(int code) {
  switch (code) {
    case kNotSupported:
      return absl::StatusCode::kUnimplemented;
    case kNotFound:
      return absl::StatusCode::kNotFound;
    case kNoPermission:
    case kLibraryMismatch:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

// dlerror's, which names the library.
std::string LoaderError() {
  const char* text = dlerror();
  return text == nullptr ? "the loader gives no reason" : text;
}

}  // namespace

struct Nvml::Functions {
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int code) = nullptr;
  int (*handle_by_uuid)(const char* uuid, NvmlDevice** device) = nullptr;
  int (*utilization)(NvmlDevice* device, NvmlUtilization* rates) = nullptr;
  int (*memory)(NvmlDevice* device, NvmlMemory* memory) = nullptr;
};

std::string GpuUuid(absl::string_view bytes) {
  const std::string hex = absl::BytesToHexString(bytes);
  const absl::string_view text(hex);
  return absl::StrCat("GPU-", text.substr(0, 8), "-", text.substr(8, 4), "-",
                      text.substr(12, 4), "-", text.substr(16, 4), "-",
                      text.substr(20));
}

Nvml::Nvml(void* library)
    : library_(library), functions_(std::make_unique<Functions>()) {}

Nvml::~Nvml() {
  if (started_) functions_->shutdown();
  dlclose(library_);
}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Load(const std::string& library) {
  void* const loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("NVML: expected the driver's library, got: ",
                                  LoaderError()),
                     {.reason = "NO_NVML", .metadata = {}});
  }
  std::unique_ptr<Nvml> nvml(new Nvml(loaded));
  SP_RETURN_IF_ERROR(nvml->FindFunctions(library));
  SP_RETURN_IF_ERROR(
      nvml->ToStatus("nvmlInit_v2", library, nvml->functions_->init()));
  nvml->started_ = true;
  return nvml;
}

absl::Status Nvml::FindFunctions(const std::string& library) {
  absl::Status status;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
        dlsym(library_, name));
    if (function != nullptr) return;
    status.Update(
        MakeError(absl::StatusCode::kUnimplemented,
                  absl::StrCat("NVML: expected a library with ", name,
                               ", got: ", library),
                  {.reason = "NO_NVML", .metadata = {{"expected", name}}}));
  };
  find("nvmlInit_v2", functions_->init);
  find("nvmlShutdown", functions_->shutdown);
  find("nvmlErrorString", functions_->error_string);
  find("nvmlDeviceGetHandleByUUID", functions_->handle_by_uuid);
  find("nvmlDeviceGetUtilizationRates", functions_->utilization);
  find("nvmlDeviceGetMemoryInfo", functions_->memory);
  return status;
}

absl::Status Nvml::ToStatus(absl::string_view what, absl::string_view of,
                            int code) const {
  if (code == kSuccess) return absl::OkStatus();
  return MakeError(
      CodeOf(code),
      absl::StrCat("NVML: ", what, " of ", of,
                   ": got: ", functions_->error_string(code), " (", code, ")"),
      {.reason = "NVML_FAILED", .metadata = {{"code", absl::StrCat(code)}}});
}

// Anew each time, which is a look-up: a GPU may be gone, or back after a reset.
absl::StatusOr<NvmlDevice*> Nvml::Find(const std::string& uuid) const {
  NvmlDevice* device = nullptr;
  SP_RETURN_IF_ERROR(
      ToStatus("nvmlDeviceGetHandleByUUID", uuid,
               functions_->handle_by_uuid(uuid.c_str(), &device)));
  return device;
}

absl::StatusOr<GpuUtilization> Nvml::Utilization(
    const std::string& uuid) const {
  SP_ASSIGN_OR_RETURN(NvmlDevice * device, Find(uuid));
  NvmlUtilization rates = {};
  SP_RETURN_IF_ERROR(ToStatus("nvmlDeviceGetUtilizationRates", uuid,
                              functions_->utilization(device, &rates)));
  return GpuUtilization{.kernels = rates.gpu / 100.0,
                        .memory = rates.memory / 100.0};
}

absl::StatusOr<GpuMemory> Nvml::Memory(const std::string& uuid) const {
  SP_ASSIGN_OR_RETURN(NvmlDevice * device, Find(uuid));
  NvmlMemory memory = {};
  SP_RETURN_IF_ERROR(ToStatus("nvmlDeviceGetMemoryInfo", uuid,
                              functions_->memory(device, &memory)));
  return GpuMemory{.total = static_cast<int64_t>(memory.total),
                   .free = static_cast<int64_t>(memory.free),
                   .used = static_cast<int64_t>(memory.used)};
}

}  // namespace shardplane
