#include "worker/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/matchers.h"
#include "worker/fake_nvml_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

TEST(GpuUuidTest, IsWrittenAsNvmlWritesIt) {
  EXPECT_EQ(GpuUuid(absl::string_view("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"
                                      "\x0a\x0b\x0c\x0d\x0e\xff",
                                      16)),
            kFakeGpu);
}

TEST(NvmlTest, TellsWhatTheGpuDoes) {
  const FakeNvml fake;
  const auto nvml = Nvml::Load(kFakeNvml);
  ASSERT_THAT(nvml, IsOk());
  const auto utilization = (*nvml)->Utilization(kFakeGpu);
  ASSERT_THAT(utilization, IsOk());
  EXPECT_EQ(utilization->kernels, 0.75);
  EXPECT_EQ(utilization->memory, 0.2);
  const auto memory = (*nvml)->Memory(kFakeGpu);
  ASSERT_THAT(memory, IsOk());
  EXPECT_EQ(memory->total, 150'000'000'000);
  EXPECT_EQ(memory->free, 100'000'000'000);
  EXPECT_EQ(memory->used, 50'000'000'000);
}

TEST(NvmlTest, NoLibraryIsNotFound) {
  EXPECT_THAT(
      Nvml::Load("worker/libno_such_library.so"),
      AllOf(StatusIs(StatusCode::kNotFound, HasSubstr("libno_such_library.so")),
            HasReason("NO_NVML")));
}

TEST(NvmlTest, ALibraryWithoutAFunctionIsNamed) {
  EXPECT_THAT(Nvml::Load(kOldFakeNvml),
              AllOf(StatusIs(StatusCode::kUnimplemented,
                             AllOf(HasSubstr("nvmlDeviceGetUtilizationRates"),
                                   HasSubstr(kOldFakeNvml))),
                    HasReason("NO_NVML")));
}

TEST(NvmlTest, ADriverThatIsNotLoadedIsUnavailable) {
  const FakeNvml fake("nvmlInit_v2=9");
  EXPECT_THAT(Nvml::Load(kFakeNvml),
              AllOf(StatusIs(StatusCode::kUnavailable,
                             HasSubstr("nvmlInit_v2 of worker/libfake_nvml.so: "
                                       "got: Driver Not Loaded (9)")),
                    HasReason("NVML_FAILED")));
  EXPECT_EQ(fake.initialized(), 0);
}

TEST(NvmlTest, AGpuThatIsNotThereIsNotFound) {
  const auto nvml = Nvml::Load(kFakeNvml);
  ASSERT_THAT(nvml, IsOk());
  const std::string other = "GPU-ffffffff-0405-0607-0809-0a0b0c0d0e0f";
  EXPECT_THAT(
      (*nvml)->Memory(other),
      StatusIs(StatusCode::kNotFound, HasSubstr(other + ": got: Not Found")));
  EXPECT_THAT((*nvml)->Utilization(other),
              StatusIs(StatusCode::kNotFound, HasSubstr(other)));
}

TEST(NvmlTest, ErrorsAreNvmlsOwn) {
  const auto nvml = Nvml::Load(kFakeNvml);
  ASSERT_THAT(nvml, IsOk());
  {
    const FakeNvml fake("nvmlDeviceGetUtilizationRates=3");
    EXPECT_THAT((*nvml)->Utilization(kFakeGpu),
                StatusIs(StatusCode::kUnimplemented,
                         HasSubstr("got: Not Supported (3)")));
    EXPECT_THAT((*nvml)->Memory(kFakeGpu), IsOk());
  }
  {
    const FakeNvml fake("nvmlDeviceGetMemoryInfo=15");
    EXPECT_THAT(
        (*nvml)->Memory(kFakeGpu),
        StatusIs(StatusCode::kUnavailable, HasSubstr("GPU is lost (15)")));
  }
  {
    const FakeNvml fake("nvmlDeviceGetHandleByUUID=4");
    EXPECT_THAT((*nvml)->Memory(kFakeGpu),
                StatusIs(StatusCode::kFailedPrecondition,
                         HasSubstr("Insufficient Permissions (4)")));
  }
}

TEST(NvmlTest, EndsWhatItHasBegun) {
  const FakeNvml fake;
  {
    const auto nvml = Nvml::Load(kFakeNvml);
    ASSERT_THAT(nvml, IsOk());
    EXPECT_EQ(fake.initialized(), 1);
  }
  EXPECT_EQ(fake.initialized(), 0);
}

}  // namespace
}  // namespace shardplane
