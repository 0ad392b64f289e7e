// What a binary for GPUs says on any machine, one without GPUs too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/matchers.h"
#include "worker/cuda_support.h"
#include "worker/device_for_test.h"
#include "worker/torch_executor.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

TEST(NcclDeviceTest, ABinaryThatLinksNcclIsForGpus) {
  EXPECT_TRUE(IsForGpus());
  EXPECT_NE(FindCudaSupport(), nullptr);
}

TEST(NcclDeviceTest, AGpuThatIsNotThereIsNamed) {
  const std::string device = absl::StrCat("cuda:", CountGpus());
  EXPECT_THAT(CheckDevice(device),
              AllOf(StatusIs(StatusCode::kFailedPrecondition,
                             AllOf(HasSubstr(CountGpus() > 0 ? "GPUs" : "GPU"),
                                   HasSubstr(absl::StrCat("got: ", device)))),
                    HasReason("NO_CUDA")));
  EXPECT_THAT(MakeTorchExecutor({.device = device}).status(),
              StatusIs(StatusCode::kFailedPrecondition, testing::_));
}

TEST(NcclDeviceTest, CpusStayUsable) {
  EXPECT_THAT(CheckDevice("cpu"), IsOkAndHolds("cpu"));
  EXPECT_THAT(MakeTorchExecutor({}).status(), IsOk());
}

}  // namespace
}  // namespace shardplane
