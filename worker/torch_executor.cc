#include "worker/torch_executor.h"

#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "c10/core/Device.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "common/errors.h"
#include "worker/collectives.h"
#include "worker/cuda_support.h"
#include "worker/fused_kernels.h"
#include "worker/gang_tensors.h"
#include "worker/process_groups.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

absl::Status NoGang() {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   "expected a gang, got: a worker that is in none",
                   {.reason = "NO_GANG", .metadata = {}});
}

// Throws what it has failed of. Does not wait: something may still run there
// that waits for a peer that is gone.
void AskDevice(c10::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.queryStream(guard.getStream(device));
}

GangTensors::Graphs GraphsOf(const TorchExecutorOptions& options,
                             c10::Device device) {
  if (!options.graphs || !device.is_cuda()) return {};
  return {FindCudaSupport()->make_graph, options.on_capture};
}

// Of the first GPU that is opened; a process has one.
absl::Status UseKernelsOf(c10::Device device) {
  static const absl::Status status = [&] {
    const absl::StatusOr<KernelLauncher*> kernels =
        FindCudaSupport()->kernels(device);
    if (kernels.ok()) UseFusedKernels(*kernels, c10::DispatchKey::CUDA);
    return kernels.status();
  }();
  return status;
}

class TorchExecutor : public Executor {
 public:
  TorchExecutor(const TorchExecutorOptions& options, c10::Device device)
      : options_(options), device_(device) {}

  ~TorchExecutor() override { LeaveGang().IgnoreError(); }

  absl::Status JoinGang(const GangSpec& spec,
                        std::shared_ptr<GangStore> store) override;
  absl::Status LeaveGang() override;
  absl::Status Stage(const std::string& key, HostTensor tensor) override;
  absl::StatusOr<RanCollectives> Materialize(
      const MaterializeSpec& spec, MaterializeProgress* progress) override;
  absl::Status LoadProgram(const std::string& id,
                           const ShardedProgram& program) override;
  absl::StatusOr<RunResult> Run(const RunSpec& spec) override;
  absl::Status CheckCommit(const std::optional<OptimizerOptions>& optimizer,
                           std::optional<double> clip_norm) override;
  absl::StatusOr<Agreement> Agree(Verdict verdict) override;
  absl::Status Commit(const std::optional<OptimizerOptions>& optimizer,
                      std::optional<double> clip_norm) override;
  absl::Status Discard() override;
  absl::Status LoadState(const LoadStateSpec& spec) override;
  absl::Status ResetOptimizer() override;
  absl::StatusOr<ShardedTensor> Read(const TensorKey& key) override;
  void Abort(absl::string_view reason) override;

 private:
  // Calls `function` on the gang's tensors, or says that there are none.
  template <typename Function>
  auto WithTensors(absl::string_view doing, Function&& function)
      -> std::invoke_result_t<Function, GangTensors&>;
  // The same for what communicates: refused in a broken gang, and breaks it
  // when a peer turns out to be gone.
  template <typename Function>
  auto Communicating(absl::string_view doing, Function&& function)
      -> std::invoke_result_t<Function, GangTensors&>;
  // Calls `function` with the device as the thread's own; what it throws is a
  // Status, and whoever waits for the device's failure is told of it.
  template <typename Function>
  std::invoke_result_t<Function> OnDevice(absl::string_view doing,
                                          Function&& function);
  absl::Status CheckWhole();
  void Break(absl::string_view reason);
  absl::Status LeaveGroups(GangTensors& tensors);

  const TorchExecutorOptions options_;
  const c10::Device device_;
  std::optional<GangSpec> spec_;
  std::unique_ptr<GangTensors> tensors_;
  std::unique_ptr<Communicator> communicator_;

  absl::Mutex mutex_;
  // Shared with an Abort that runs while the gang is being left.
  std::shared_ptr<ProcessGroups> groups_ ABSL_GUARDED_BY(mutex_);
  std::string broken_ ABSL_GUARDED_BY(mutex_);  // why; "": it is not
};

absl::Status TorchExecutor::CheckWhole() {
  absl::MutexLock lock(&mutex_);
  if (broken_.empty()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("expected a whole gang, got: one that broke: ", broken_),
      {.reason = "GANG_BROKEN", .metadata = {}});
}

void TorchExecutor::Break(absl::string_view reason) {
  absl::MutexLock lock(&mutex_);
  if (broken_.empty()) broken_ = std::string(reason);
}

const absl::Status& StatusOf(const absl::Status& result) { return result; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

template <typename Function>
std::invoke_result_t<Function> TorchExecutor::OnDevice(absl::string_view doing,
                                                       Function&& function) {
  auto result = CatchTorch(doing, [&] {
    const c10::DeviceGuard guard(device_);  // the thread's current one
    return function();
  });
  const absl::Status& status = StatusOf(result);
  if (options_.on_device_failed && IsDeviceFailure(status)) {
    options_.on_device_failed(status);
  }
  return result;
}

template <typename Function>
auto TorchExecutor::WithTensors(absl::string_view doing, Function&& function)
    -> std::invoke_result_t<Function, GangTensors&> {
  if (tensors_ == nullptr) return NoGang();
  return OnDevice(doing, [&] { return function(*tensors_); });
}

template <typename Function>
auto TorchExecutor::Communicating(absl::string_view doing, Function&& function)
    -> std::invoke_result_t<Function, GangTensors&> {
  if (tensors_ == nullptr) return NoGang();
  SP_RETURN_IF_ERROR(CheckWhole());
  auto result =
      WithTensors(doing,
                  [&](GangTensors& tensors)
                      -> std::invoke_result_t<Function, GangTensors&> {
                    auto made = function(tensors);
                    if (made.ok()) SP_RETURN_IF_ERROR(communicator_->Finish());
                    return made;
                  });
  if (absl::IsUnavailable(result.status())) {
    Break(result.status().message());
    SP_RETURN_IF_ERROR(LeaveGroups(*tensors_));
  }
  return result;
}

absl::Status TorchExecutor::LeaveGroups(GangTensors& tensors) {
  return OnDevice("leaving process groups", [&] {
    tensors.LeaveGroups();
    return absl::OkStatus();
  });
}

absl::Status TorchExecutor::JoinGang(const GangSpec& spec,
                                     std::shared_ptr<GangStore> store) {
  // Connections anew; tensors stay where the same rank of the same deployment
  // comes back in a new epoch.
  const bool same = spec_.has_value() && spec_->deployment == spec.deployment &&
                    spec_->rank == spec.rank && spec_->mesh == spec.mesh;
  std::unique_ptr<GangTensors> kept = same ? std::move(tensors_) : nullptr;
  if (kept != nullptr) SP_RETURN_IF_ERROR(LeaveGroups(*kept));
  SP_RETURN_IF_ERROR(LeaveGang());
  const std::string doing = absl::StrCat(
      "joining the gang of ", spec.deployment, " as rank ", spec.rank);
  absl::StatusOr<std::shared_ptr<ProcessGroups>> groups =
      OnDevice(doing, [&]() -> absl::StatusOr<std::shared_ptr<ProcessGroups>> {
        // A group's own errors need not say that it was the device.
        AskDevice(device_);
        return ProcessGroups::Create(spec, std::move(store),
                                     {.hostname = options_.collective_hostname,
                                      .device = device_,
                                      .transport = options_.transport});
      });
  SP_RETURN_IF_ERROR(groups.status());
  if (options_.on_group) {
    for (const GroupTransport& group : (*groups)->transports())
      options_.on_group(spec, group);
  }
  spec_ = spec;
  tensors_ = kept != nullptr ? std::move(kept)
                             : std::make_unique<GangTensors>(
                                   spec, device_, GraphsOf(options_, device_),
                                   options_.nvtx, options_.weights_root);
  SP_RETURN_IF_ERROR(tensors_->Discard());
  communicator_ =
      std::make_unique<Communicator>(groups->get(), spec.mesh, spec.rank);
  communicator_->set_device(device_);
  absl::MutexLock lock(&mutex_);
  groups_ = *std::move(groups);
  return absl::OkStatus();
}

absl::Status TorchExecutor::LeaveGang() {
  return OnDevice("leaving a gang", [&] {
    communicator_.reset();
    tensors_.reset();
    spec_.reset();
    std::shared_ptr<ProcessGroups> groups;
    {
      absl::MutexLock lock(&mutex_);
      groups = std::move(groups_);
      groups_.reset();
      broken_.clear();
    }
    // Connections close here, outside the lock.
    groups.reset();
    ReleaseUnusedMemory(device_);
    return absl::OkStatus();
  });
}

absl::Status TorchExecutor::Stage(const std::string& key, HostTensor tensor) {
  return WithTensors("staging a tensor", [&](GangTensors& tensors) {
    return tensors.Stage(key, std::move(tensor));
  });
}

absl::StatusOr<RanCollectives> TorchExecutor::Materialize(
    const MaterializeSpec& spec, MaterializeProgress* progress) {
  return Communicating("materializing", [&](GangTensors& tensors) {
    return tensors.Materialize(spec, *communicator_, progress);
  });
}

absl::Status TorchExecutor::LoadProgram(const std::string& id,
                                        const ShardedProgram& program) {
  return WithTensors(
      absl::StrCat("loading program ", id),
      [&](GangTensors& tensors) { return tensors.LoadProgram(id, program); });
}

absl::StatusOr<RunResult> TorchExecutor::Run(const RunSpec& spec) {
  return Communicating(
      spec.mode == RunMode::kNorm
          ? "computing the gradients' norm"
          : absl::StrCat("running program ", spec.program),
      [&](GangTensors& tensors) { return tensors.Run(spec, *communicator_); });
}

absl::Status TorchExecutor::CheckCommit(
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  return WithTensors("checking an update", [&](GangTensors& tensors) {
    return tensors.CheckCommit(optimizer, clip_norm);
  });
}

absl::StatusOr<Agreement> TorchExecutor::Agree(Verdict verdict) {
  return Communicating("agreeing on a step", [&](GangTensors& tensors) {
    return tensors.Agree(verdict, *communicator_);
  });
}

absl::Status TorchExecutor::Commit(
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  return WithTensors("committing", [&](GangTensors& tensors) {
    return tensors.Commit(optimizer, clip_norm);
  });
}

absl::Status TorchExecutor::Discard() {
  return WithTensors("discarding",
                     [](GangTensors& tensors) { return tensors.Discard(); });
}

absl::Status TorchExecutor::LoadState(const LoadStateSpec& spec) {
  return WithTensors("loading parameters", [&](GangTensors& tensors) {
    return tensors.LoadState(spec);
  });
}

absl::Status TorchExecutor::ResetOptimizer() {
  return WithTensors("resetting the optimizer", [](GangTensors& tensors) {
    return tensors.ResetOptimizer();
  });
}

absl::StatusOr<ShardedTensor> TorchExecutor::Read(const TensorKey& key) {
  return WithTensors("reading a tensor",
                     [&](GangTensors& tensors) { return tensors.Read(key); });
}

void TorchExecutor::Abort(absl::string_view reason) {
  std::shared_ptr<ProcessGroups> groups;
  {
    absl::MutexLock lock(&mutex_);
    groups = groups_;
    if (groups != nullptr && broken_.empty()) broken_ = std::string(reason);
  }
  if (groups != nullptr) groups->Abort();
}

}  // namespace

bool IsForGpus() { return FindCudaSupport() != nullptr; }

absl::StatusOr<std::string> CheckDevice(const std::string& name) {
  return CatchTorch("opening a device", [&]() -> absl::StatusOr<std::string> {
    SP_ASSIGN_OR_RETURN(const c10::Device device, OpenDevice(name));
    return device.str();
  });
}

absl::StatusOr<std::unique_ptr<Executor>> MakeTorchExecutor(
    const TorchExecutorOptions& options) {
  return CatchTorch("starting LibTorch",
                    [&]() -> absl::StatusOr<std::unique_ptr<Executor>> {
                      SP_ASSIGN_OR_RETURN(const c10::Device device,
                                          OpenDevice(options.device));
                      if (options.threads > 0)
                        at::set_num_threads(options.threads);
                      if (device.is_cuda()) {
                        const absl::Status kernels = UseKernelsOf(device);
                        if (options.on_kernels) options.on_kernels(kernels);
                      }
                      return std::make_unique<TorchExecutor>(options, device);
                    });
}

}  // namespace shardplane
