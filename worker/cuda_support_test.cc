#include "worker/cuda_support.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

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

}  // namespace
}  // namespace shardplane
