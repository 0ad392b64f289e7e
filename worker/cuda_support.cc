#include "worker/cuda_support.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Set by constructors of other files, and so no object with one of its own.
const CudaSupport* registered = nullptr;

absl::Status NoDevice(absl::StatusCode code, absl::string_view what,
                      absl::string_view name) {
  return MakeError(
      code, absl::StrCat("device: expected ", what, ", got: ", name),
      {.reason = code == absl::StatusCode::kInvalidArgument ? "NO_SUCH_DEVICE"
                                                            : "NO_CUDA",
       .metadata = {{"device", std::string(name)}}});
}

}  // namespace

const CudaSupport* FindCudaSupport() { return registered; }

void RegisterCudaSupport(const CudaSupport* support) { registered = support; }

TensorMemory MeasureTensorMemory(c10::Device device) {
  if (!device.is_cuda()) return MeasureTensorMemory();
  return registered == nullptr ? TensorMemory()
                               : registered->tensor_memory(device.index());
}

void ResetTensorMemoryMark(c10::Device device) {
  if (!device.is_cuda()) return ResetTensorMemoryMark();
  if (registered != nullptr) {
    registered->reset_tensor_memory_mark(device.index());
  }
}

void ReleaseUnusedMemory(c10::Device device) {
  if (device.is_cuda() && registered != nullptr) {
    registered->release_unused_memory();
  }
}

absl::StatusOr<c10::Device> OpenDevice(absl::string_view name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  absl::string_view number = name;
  int index = 0;
  // c10 counts devices in eight bits.
  if (!absl::ConsumePrefix(&number, "cuda") ||
      (!number.empty() &&
       (!absl::ConsumePrefix(&number, ":") ||
        !absl::SimpleAtoi(number, &index) || index < 0 || index > 127))) {
    return NoDevice(absl::StatusCode::kInvalidArgument, "cpu, cuda or cuda:N",
                    name);
  }
  if (registered == nullptr) {
    return NoDevice(absl::StatusCode::kFailedPrecondition,
                    "cpu, for a worker that is built without CUDA", name);
  }
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  SP_RETURN_IF_ERROR(registered->check_device(device));
  return device;
}

}  // namespace shardplane
