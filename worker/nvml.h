// NVML, the library of NVIDIA's driver that tells what a GPU does. Loaded when
// it is asked for: only machines with a GPU have it.
#ifndef SHARDPLANE_WORKER_NVML_H_
#define SHARDPLANE_WORKER_NVML_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

struct NvmlDevice;  // NVML's handle

// The driver's, by the name under which it is found.
inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// A GPU's name in NVML, of the 16 bytes that CUDA tells:
// "GPU-8c96ea63-0b4a-5f91-8a1d-2f6c1f0d3b7e".
std::string GpuUuid(absl::string_view bytes);

// Of all processes that use the GPU: the share of NVML's last sample period,
// between a sixth of a second and a second, in which a kernel ran, and in which
// its memory was read or written.
struct GpuUtilization {
  double kernels = 0;
  double memory = 0;
};

// Of all processes that use the GPU, in bytes; what the driver keeps for itself
// counts as used.
struct GpuMemory {
  int64_t total = 0;
  int64_t free = 0;
  int64_t used = 0;
};

// GPUs by UUID: CUDA_VISIBLE_DEVICES numbers those of a process anew, and NVML
// does not read it. Thread-safe. Example:
//   auto nvml = Nvml::Load();
//   auto memory = (*nvml)->Memory("GPU-8c96ea63-…");
class Nvml {
 public:
  // NotFound: no such library. Unimplemented: one that lacks a function. Else
  // why NVML does not start, as below.
  static absl::StatusOr<std::unique_ptr<Nvml>> Load(
      const std::string& library = kNvmlLibrary);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // NotFound: no GPU of that UUID. Unimplemented: this GPU does not tell, as
  // one that MIG divides. FailedPrecondition: this process may not ask, or the
  // library is not the driver's. Unavailable: all else. With NVML's own words.
  absl::StatusOr<GpuUtilization> Utilization(const std::string& uuid) const;
  absl::StatusOr<GpuMemory> Memory(const std::string& uuid) const;

 private:
  struct Functions;

  explicit Nvml(void* library);
  absl::Status FindFunctions(const std::string& library);
  absl::Status ToStatus(absl::string_view what, absl::string_view of,
                        int code) const;
  absl::StatusOr<NvmlDevice*> Find(const std::string& uuid) const;

  void* const library_;  // of dlopen
  std::unique_ptr<Functions> functions_;
  bool started_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_NVML_H_
