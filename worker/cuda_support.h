// What a binary for GPUs can and one for CPUs cannot. CUDA's libraries cost a
// third of a second and a third of a gigabyte at every start, so only
// shardplane_worker_cuda links them, with worker/nccl_group, which registers
// itself here.
#ifndef SHARDPLANE_WORKER_CUDA_SUPPORT_H_
#define SHARDPLANE_WORKER_CUDA_SUPPORT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"
#include "c10/util/intrusive_ptr.h"
#include "worker/process_groups.h"
#include "worker/tensor_memory.h"

namespace c10d {
class Store;
}  // namespace c10d

namespace shardplane {

class KernelLauncher;  // worker/kernels

struct CudaGroupOptions {
  std::string name;        // of the mesh dim, for messages
  std::vector<int> ranks;  // the group's, as the gang numbers them
  int rank = 0;            // this one's place among them
  std::chrono::milliseconds timeout{60'000};
  c10::Device device = c10::Device(c10::kCUDA, 0);
};

// Work of a device that is started again at once, without the host's calls.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;

  // What `work` begins on the device is recorded, not run; it may not wait for
  // the device. Returns what `work` returns: memory that every Replay fills.
  // Once. Throws what `work` throws, and c10::Errors; then there is nothing to
  // replay, and the thread's stream is as it was.
  using Work = std::function<std::vector<at::Tensor>()>;
  virtual std::vector<at::Tensor> Capture(const Work& work) = 0;
  // Begins it on the thread's current stream. Reads and writes the memory that
  // it did when it was captured.
  virtual void Replay() = 0;
};
using MakeDeviceGraph = std::function<std::unique_ptr<DeviceGraph>()>;

struct CudaSupport {
  // FailedPrecondition: tensors cannot live on that GPU; says why.
  absl::Status (*check_device)(c10::Device device);
  // See ProcessGroups::Create.
  absl::StatusOr<std::unique_ptr<ProcessGroup>> (*make_group)(
      const c10::intrusive_ptr<c10d::Store>& store,
      const CudaGroupOptions& options);
  // Bytes that tensors of this process take of GPU `index`, and that it has;
  // zeros if it cannot be asked.
  std::pair<int64_t, int64_t> (*memory)(int index);
  // As MeasureTensorMemory and ResetTensorMemoryMark, of GPU `index`: what
  // tensors of this process have asked for. Zeros if it cannot be asked.
  TensorMemory (*tensor_memory)(int index);
  void (*reset_tensor_memory_mark)(int index);
  // As ReleaseUnusedMemory.
  void (*release_unused_memory)();
  // See CudaKernels.
  absl::StatusOr<KernelLauncher*> (*kernels)(c10::Device device);
  std::unique_ptr<DeviceGraph> (*make_graph)();
  // NVML's name of GPU `index` (worker/nvml); "" if it cannot be asked.
  std::string (*uuid)(int index);
};

// nullptr in a binary for CPUs.
const CudaSupport* FindCudaSupport();
// Before main. Borrows.
void RegisterCudaSupport(const CudaSupport* support);

// Where tensors shall live: "cpu", "cuda:1", or "cuda", which is "cuda:0".
// InvalidArgument: anything else. FailedPrecondition: no such GPU here, or a
// binary for CPUs.
absl::StatusOr<c10::Device> OpenDevice(absl::string_view name);

// What worker/tensor_memory tells of the host, of any device that is open. Of
// a GPU what libraries ask LibTorch for counts, too: workspaces of cuBLAS,
// which stay. What a DeviceGraph computes in does not, but for what it returns.
TensorMemory MeasureTensorMemory(c10::Device device);
void ResetTensorMemoryMark(c10::Device device);

// Gives a GPU back what no tensor of this process takes of it: LibTorch keeps
// that for the next one, also what ended graphs have computed in.
void ReleaseUnusedMemory(c10::Device device);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CUDA_SUPPORT_H_
