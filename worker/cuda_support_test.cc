#include "worker/cuda_support.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

using testing::FieldsAre;

// This test does not link worker/nccl_group: it is a binary for CPUs.
TEST(OpenDeviceTest, CpuIsThere) {
  EXPECT_THAT(OpenDevice("cpu"), IsOkAndHolds(c10::Device(c10::kCPU)));
}

TEST(OpenDeviceTest, WithoutCudaThereIsNoGpu) {
  EXPECT_EQ(FindCudaSupport(), nullptr);
  for (const char* name : {"cuda", "cuda:0", "cuda:3"}) {
    EXPECT_THAT(OpenDevice(name),
                AllOf(StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr(absl::StrCat("got: ", name))),
                      HasReason("NO_CUDA")));
  }
}

TEST(OpenDeviceTest, OtherNamesAreRefused) {
  for (const char* name : {"", "gpu", "cuda0", "cuda:", "cuda:x", "cuda:-1",
                           "cuda:128", "cpu:0", "meta"}) {
    EXPECT_THAT(OpenDevice(name),
                AllOf(StatusIs(StatusCode::kInvalidArgument,
                               HasSubstr("cpu, cuda or cuda:N")),
                      HasReason("NO_SUCH_DEVICE")))
        << name;
  }
}

int marks_reset = 0;  // on GPU 3
int released = 0;

constexpr CudaSupport kCounting = {
    .tensor_memory = [](int index) -> TensorMemory {
      return {.now = index, .most = 70};
    },
    .reset_tensor_memory_mark = [](int index) { marks_reset += index == 3; },
    .release_unused_memory = [] { ++released; }};

TEST(TensorMemoryOfADeviceTest, IsTheHostsOrTheGpus) {
  KeepTensorMemory();
  const at::Tensor tensor = at::empty({1000}, at::kByte);
  const c10::Device gpu(c10::kCUDA, 3);
  EXPECT_GE(MeasureTensorMemory(c10::Device(c10::kCPU)).now, 1000);
  EXPECT_THAT(MeasureTensorMemory(gpu), FieldsAre(0, 0));
  ResetTensorMemoryMark(gpu);

  RegisterCudaSupport(&kCounting);
  EXPECT_THAT(MeasureTensorMemory(gpu), FieldsAre(3, 70));
  ResetTensorMemoryMark(gpu);
  ResetTensorMemoryMark(c10::Device(c10::kCPU));
  EXPECT_EQ(marks_reset, 1);
  ReleaseUnusedMemory(gpu);
  ReleaseUnusedMemory(c10::Device(c10::kCPU));
  EXPECT_EQ(released, 1);
  RegisterCudaSupport(nullptr);
}

}  // namespace
}  // namespace shardplane
