#include "worker/nccl_group.h"

#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "ATen/cuda/CUDAContext.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "c10/cuda/CUDACachingAllocator.h"
#include "c10/cuda/CUDAFunctions.h"
#include "common/errors.h"
#include "torch/csrc/distributed/c10d/NCCLUtils.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp"
#include "worker/cuda_graph.h"
#include "worker/cuda_kernels.h"
#include "worker/nvml.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// From here on ranks may share a GPU, where the environment says so.
constexpr int kSharingVersion = NCCL_VERSION(2, 30, 0);
constexpr char kSharing[] = "NCCL_MULTI_RANK_GPU_ENABLE";
// How often Finish looks, while a step runs on the GPU.
constexpr std::chrono::microseconds kLook{20};

std::vector<int64_t> InBytes(absl::Span<const int64_t> counts,
                             const at::Tensor& tensor) {
  std::vector<int64_t> bytes(counts.begin(), counts.end());
  for (int64_t& count : bytes) count *= tensor.element_size();
  return bytes;
}

// A type that NCCL adds.
at::ScalarType SummedAs(at::ScalarType type) {
  return type == at::kShort ? at::kInt : type;
}

c10d::ReduceOp ToC10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return c10d::ReduceOp::SUM;
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
  }
  return c10d::ReduceOp::UNUSED;
}

// The name that no other GPU in the world has.
std::string NameOf(c10::Device device) {
  const cudaDeviceProp* properties =
      at::cuda::getDeviceProperties(device.index());
  return GpuUuid(absl::string_view(properties->uuid.bytes, sizeof(cudaUUID_t)));
}

// The GPU of every rank. Blocks until all have come.
std::vector<std::string> ExchangeNames(
    const c10::intrusive_ptr<c10d::Store>& store,
    const CudaGroupOptions& options) {
  const auto key = [](size_t rank) { return absl::StrCat("gpu/", rank); };
  store->set(key(options.rank), NameOf(options.device));
  std::vector<std::string> names;
  for (size_t rank = 0; rank < options.ranks.size(); ++rank) {
    names.push_back(store->get_to_str(key(rank)));
  }
  return names;
}

absl::Status CheckSharing(const std::vector<std::string>& names,
                          const CudaGroupOptions& options) {
  const char* sharing = std::getenv(kSharing);
  if (c10d::getNcclVersionNumber() >= kSharingVersion && sharing != nullptr &&
      std::string(sharing) == "1") {
    return absl::OkStatus();
  }
  for (size_t rank = 0; rank < names.size(); ++rank) {
    for (size_t other = rank + 1; other < names.size(); ++other) {
      if (names[rank] != names[other]) continue;
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          absl::StrCat("mesh dim ", options.name,
                       ": expected a GPU for each rank, or NCCL 2.30 and ",
                       kSharing, "=1; got: ranks ", options.ranks[rank],
                       " and ", options.ranks[other], " on ", names[rank],
                       " with NCCL ", c10d::getNcclVersion(), " and ", kSharing,
                       "=", sharing == nullptr ? "" : sharing,
                       "; --collectives=shm goes through the host's memory"),
          {.reason = "GPU_SHARED", .metadata = {{"mesh_dim", options.name}}});
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDevice(c10::Device device) {
  try {
    const int count = c10::cuda::device_count_ensure_non_zero();
    if (device.index() < count) return absl::OkStatus();
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("device: expected one of ", count,
                                  " GPUs; got: ", device.str()),
                     {.reason = "NO_CUDA", .metadata = {}});
  } catch (const c10::Error& error) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("device: expected a GPU that CUDA can use (",
                     error.what_without_backtrace(), "); got: ", device.str()),
        {.reason = "NO_CUDA", .metadata = {}});
  }
}

// Puts the current stream behind a work; null: nothing travels.
void Synchronize(const c10::intrusive_ptr<c10d::Work>& work) {
  if (work != nullptr) work->synchronize();
}

std::pair<int64_t, int64_t> Memory(int index) {
  try {
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
    return {stats.allocated_bytes[0].current,
            static_cast<int64_t>(
                at::cuda::getDeviceProperties(device)->totalGlobalMem)};
  } catch (const c10::Error&) {
    return {0, 0};  // a metric that is not known
  }
}

TensorMemory AskedOf(int index) {
  try {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(
        static_cast<c10::DeviceIndex>(index));
    // Of all, small and large; sizes as they were asked for, not rounded.
    const auto& asked = stats.requested_bytes[0];
    return {.now = asked.current, .most = asked.peak};
  } catch (const c10::Error&) {
    return {};  // CUDA has not begun
  }
}

void ResetMarkOf(int index) {
  try {
    c10::cuda::CUDACachingAllocator::resetPeakStats(
        static_cast<c10::DeviceIndex>(index));
  } catch (const c10::Error&) {
    // As above.
  }
}

void ReleaseUnused() {
  try {
    c10::cuda::CUDACachingAllocator::emptyCache();
  } catch (const c10::Error&) {
    // CUDA has not begun, or the GPU has failed: then it all goes with the
    // process.
  }
}

std::string Uuid(int index) {
  try {
    return NameOf(
        c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
  } catch (const c10::Error&) {
    return "";
  }
}

constexpr CudaSupport kSupport = {.check_device = CheckDevice,
                                  .make_group = NcclGroup::Create,
                                  .memory = Memory,
                                  .tensor_memory = AskedOf,
                                  .reset_tensor_memory_mark = ResetMarkOf,
                                  .release_unused_memory = ReleaseUnused,
                                  .kernels = CudaKernels,
                                  .make_graph = MakeCudaGraph,
                                  .uuid = Uuid};
[[maybe_unused]] const bool registered = [] {
  RegisterCudaSupport(&kSupport);
  return true;
}();

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> NcclGroup::Create(
    const c10::intrusive_ptr<c10d::Store>& store,
    const CudaGroupOptions& options) {
  at::globalContext().lazyInitDevice(c10::kCUDA);
  auto nccl = c10d::ProcessGroupNCCL::Options::create();
  nccl->timeout = options.timeout;
  nccl->group_name = options.name;
  // Made first: it makes NCCL read its configuration files into the
  // environment.
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      store, options.rank, static_cast<int>(options.ranks.size()), nccl);
  backend->setBoundDeviceId(options.device);
  std::unique_ptr<ProcessGroup> group(new NcclGroup(backend, options));
  // Once NCCL begins to connect, nothing but the last rank ends that: so all
  // are here before.
  const std::vector<std::string> names = ExchangeNames(store, options);
  SP_RETURN_IF_ERROR(CheckSharing(names, options));
  backend->eagerConnectSingleDevice(options.device);
  return group;
}

NcclGroup::NcclGroup(c10::intrusive_ptr<c10d::ProcessGroupNCCL> backend,
                     const CudaGroupOptions& options)
    : ProcessGroup(options.rank, static_cast<int>(options.ranks.size())),
      timeout_(options.timeout),
      backend_(std::move(backend)) {}

NcclGroup::~NcclGroup() {
  // Not shutdown(): that waits for the peers, of which some may be gone.
  Abort();
  std::thread aborter;
  {
    absl::MutexLock lock(&mutex_);
    aborter = std::move(aborter_);
  }
  aborter.join();
}

void NcclGroup::ThrowIfAborted() {
  absl::MutexLock lock(&mutex_);
  TORCH_CHECK_WITH(DistBackendError, !aborted_, "Aborted");
}

template <typename Start>
c10::intrusive_ptr<c10d::Work> NcclGroup::Begin(Start&& start) {
  ThrowIfAborted();
  c10::intrusive_ptr<c10d::Work> work = start();
  // A recorded one never ends by itself.
  if (!recording_) last_ = work;
  return work;
}

template <typename Start>
void NcclGroup::Enqueue(Start&& start) {
  Begin(std::forward<Start>(start))->synchronize();
}

BegunCollective NcclGroup::BeginAllReduce(const at::Tensor& input,
                                          ReduceOp op) {
  std::vector<at::Tensor> buffer{input.to(SummedAs(input.scalar_type()),
                                          /*non_blocking=*/false,
                                          /*copy=*/true)};
  c10::intrusive_ptr<c10d::Work> work;
  if (input.numel() > 0) {
    c10d::AllreduceOptions options;
    options.reduceOp = ToC10d(op);
    work = Begin([&] { return backend_->allreduce(buffer, options); });
  }
  return [work, sum = buffer[0], dtype = input.scalar_type()] {
    Synchronize(work);
    return sum.to(dtype);
  };
}

BegunCollective NcclGroup::BeginReduceScatter(const at::Tensor& input,
                                              ReduceOp op) {
  at::Tensor sent = input.to(SummedAs(input.scalar_type()));
  std::vector<int64_t> sizes = sent.sizes().vec();
  sizes[0] /= size();
  at::Tensor sum = at::empty(sizes, sent.options());
  c10::intrusive_ptr<c10d::Work> work;
  if (sent.numel() > 0) {
    c10d::ReduceScatterOptions options;
    options.reduceOp = ToC10d(op);
    work = Begin(
        [&] { return backend_->_reduce_scatter_base(sum, sent, options); });
  }
  return [work, sum, sent, dtype = input.scalar_type()] {
    Synchronize(work);
    return sum.to(dtype);
  };
}

BegunCollective NcclGroup::BeginAllGather(const at::Tensor& input) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] *= size();
  const at::Tensor output = at::empty(sizes, input.options());
  c10::intrusive_ptr<c10d::Work> work;
  if (input.numel() > 0) {
    at::Tensor received = AsBytes(output);
    at::Tensor sent = AsBytes(input);
    work = Begin([&] { return backend_->_allgather_base(received, sent); });
  }
  return [work, output, input] {
    Synchronize(work);
    return output;
  };
}

at::Tensor NcclGroup::AllReduce(const at::Tensor& input, ReduceOp op) {
  return BeginAllReduce(input, op)();
}

at::Tensor NcclGroup::ReduceScatter(const at::Tensor& input, ReduceOp op) {
  return BeginReduceScatter(input, op)();
}

void NcclGroup::AllGather(const at::Tensor& output, const at::Tensor& input) {
  if (input.numel() == 0) return;
  at::Tensor received = AsBytes(output);
  at::Tensor sent = AsBytes(input);
  Enqueue([&] { return backend_->_allgather_base(received, sent); });
}

// Also where this rank has nothing to send or receive: others may have.
void NcclGroup::AllToAll(const at::Tensor& output, const at::Tensor& input,
                         absl::Span<const int64_t> output_counts,
                         absl::Span<const int64_t> input_counts) {
  at::Tensor received = AsBytes(output);
  at::Tensor sent = AsBytes(input);
  std::vector<int64_t> received_bytes = InBytes(output_counts, output);
  std::vector<int64_t> sent_bytes = InBytes(input_counts, input);
  Enqueue([&] {
    return backend_->alltoall_base(received, sent, received_bytes, sent_bytes);
  });
}

void NcclGroup::Scatter(const at::Tensor& output, const at::Tensor& input,
                        int root) {
  if (output.numel() == 0) return;
  std::vector<at::Tensor> received{AsBytes(output)};
  std::vector<std::vector<at::Tensor>> sent;
  if (rank() == root) sent.push_back(AsBytes(input).chunk(size()));
  c10d::ScatterOptions options;
  options.rootRank = root;
  Enqueue([&] { return backend_->scatter(received, sent, options); });
}

void NcclGroup::Broadcast(const at::Tensor& buffer, int root) {
  if (buffer.numel() == 0) return;
  std::vector<at::Tensor> bytes{AsBytes(buffer)};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  Enqueue([&] { return backend_->broadcast(bytes, options); });
}

void NcclGroup::AfterReplay() {
  replayed_.emplace(c10::DeviceType::CUDA);
  replayed_->record(at::cuda::getCurrentCUDAStream().unwrap());
}

void NcclGroup::Await(absl::FunctionRef<bool()> has_ended) {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  while (!has_ended()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      Abort();
      C10_THROW_ERROR(DistBackendError,
                      absl::StrCat("Timed out waiting ", timeout_.count(),
                                   " ms for a collective"));
    }
    std::this_thread::sleep_for(kLook);
  }
}

void NcclGroup::Finish() {
  ThrowIfAborted();
  if (replayed_.has_value()) {
    Await([this] { return replayed_->query(); });
    replayed_.reset();
  }
  if (last_ != nullptr) {
    Await([this] { return last_->isCompleted(); });
    if (last_->exception() != nullptr) {
      std::rethrow_exception(last_->exception());
    }
    last_.reset();  // c10d's Work holds its results
  }
  // An aborted kernel ends too, without a result.
  ThrowIfAborted();
}

void NcclGroup::Abort() {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(aborted_, true)) return;
  aborter_ = std::thread([backend = backend_] {
    // Throws if NCCL fails, on a GPU that has, or takes longer than the
    // timeout: the group is of no more use all the same.
    try {
      backend->abort();
    } catch (const std::exception& error) {
      TORCH_WARN("closing NCCL's connections: ", error.what());
    }
  });
}

}  // namespace shardplane
