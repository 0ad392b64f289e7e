// The Executor that computes with LibTorch. Free of torch, so that main.cc can
// bring it together with gRPC.
#ifndef SHARDPLANE_WORKER_TORCH_EXECUTOR_H_
#define SHARDPLANE_WORKER_TORCH_EXECUTOR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/executor.h"
#include "worker/nvtx_range.h"
#include "worker/transport.h"

namespace shardplane {

// Whether this binary can use GPUs: see worker/cuda_support.
bool IsForGpus();

// The device's full name: "cuda" is "cuda:0". InvalidArgument: none that there
// is. FailedPrecondition: tensors cannot live there; says why.
absl::StatusOr<std::string> CheckDevice(const std::string& name);

struct TorchExecutorOptions {
  std::string device = "cpu";
  // The local address that the gang's other ranks connect to.
  std::string collective_hostname = "127.0.0.1";
  TransportChoice transport = TransportChoice::kAuto;
  // Told of each group that has formed, by the thread that calls JoinGang.
  std::function<void(const GangSpec&, const GroupTransport&)> on_group;
  // Told once, on a GPU: whether fused operators run as kernels of our own, and
  // else why they run as calls.
  std::function<void(const absl::Status&)> on_kernels;
  // On a GPU: training runs and updates are captured as CUDA graphs.
  bool graphs = false;
  // Told what ("p: steps", of program p; "updates"), and why it could not be if
  // it could not.
  std::function<void(const std::string&, const absl::Status&)> on_capture;
  // Told each time that a call finds the device failed: this process can use it
  // no more. By the thread that made the call, before that returns.
  std::function<void(const absl::Status&)> on_device_failed;
  // Folder that parameters may be read from, as WeightFiles has it.
  std::string weights_root;
  // Threads of one operator; 0: as LibTorch decides.
  int threads = 0;
  // Where runs are shown to profilers; null: nowhere. Borrowed.
  NvtxDomain* nvtx = nullptr;
};

// Errors: CheckDevice's.
absl::StatusOr<std::unique_ptr<Executor>> MakeTorchExecutor(
    const TorchExecutorOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TORCH_EXECUTOR_H_
