#include "worker/kernels/driver_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint8_t kImage[] = {1};
constexpr uintptr_t kStream = 0x5a5a;
constexpr char kFake[] = "worker/kernels/libfake_cuda.so";

class DriverKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = testing::TempDir() + "/launches";
    std::ofstream(log_).close();
    setenv("FAKE_CUDA_LOG", log_.c_str(), 1);
    unsetenv("FAKE_CUDA_LACKS");
    unsetenv("FAKE_CUDA_FAILS");
  }

  static absl::StatusOr<std::unique_ptr<KernelLauncher>> Load(
      const std::string& library = kFake) {
    return LoadDriverKernels(
        {.image = kImage,
         .stream = [] { return reinterpret_cast<void*>(kStream); },
         .library = library});
  }

  std::string TakeLog() const {
    std::stringstream text;
    text << std::ifstream(log_).rdbuf();
    std::ofstream(log_).close();
    return text.str();
  }

  std::string log_;
};

TEST_F(DriverKernelsTest, StartsTheKernelOfTheType) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  KernelLauncher& kernels = **loaded;
  const SwigluArgs args{.gate = reinterpret_cast<void*>(uintptr_t{0xabc})};
  EXPECT_THAT(kernels.Launch(Element::kF32, 3, args), IsOk());
  EXPECT_EQ(TakeLog(), "swiglu_f32 3,1,1 256,1,1 0 0x5a5a abc -\n");
  EXPECT_THAT(kernels.Launch(Element::kBf16, 1, CrossEntropyBackwardArgs{}),
              IsOk());
  EXPECT_THAT(TakeLog(), HasSubstr("cross_entropy_backward_bf16 1,1,1 "));
}

TEST_F(DriverKernelsTest, StartsTheKernelThatHasRoomForTheRow) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  KernelLauncher& kernels = **loaded;
  const auto started = [&](Element element, int64_t columns, bool packed) {
    EXPECT_THAT(
        kernels.Launch(element, 1,
                       RmsNormArgs{.columns = columns, .packed = packed}),
        IsOk());
    const std::string log = TakeLog();
    return log.substr(0, log.find(' '));
  };
  EXPECT_EQ(started(Element::kBf16, 2048, true), "rms_norm_bf16_1");
  EXPECT_EQ(started(Element::kBf16, 2056, true), "rms_norm_bf16_2");
  EXPECT_EQ(started(Element::kBf16, 257, false), "rms_norm_bf16_2");
  EXPECT_EQ(started(Element::kF32, 4096, true), "rms_norm_f32_4");
  EXPECT_EQ(started(Element::kBf16, 16384, true), "rms_norm_bf16_8");
  EXPECT_THAT(kernels.Launch(Element::kBf16, 1,
                             RmsNormArgs{.columns = 16392, .packed = true}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("too long")));
  EXPECT_THAT(TakeLog(), IsEmpty());
}

TEST_F(DriverKernelsTest, GivesEachThreadTheContext) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  std::thread([&] {
    EXPECT_THAT((*loaded)->Launch(Element::kF32, 1, SwigluArgs{}), IsOk());
  }).join();
  EXPECT_THAT(TakeLog(), HasSubstr("swiglu_f32"));
}

TEST_F(DriverKernelsTest, SaysWhatTheDriverSays) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  KernelLauncher& kernels = **loaded;
  setenv("FAKE_CUDA_FAILS", "cuLaunchKernel", 1);
  EXPECT_THAT(kernels.Launch(Element::kF32, 1, RotaryArgs{}),
              StatusIs(absl::StatusCode::kInternal,
                       "starting rotary: CUDA error 719: unspecified launch "
                       "failure"));
}

TEST_F(DriverKernelsTest, RefusesWhatLacksSomething) {
  EXPECT_THAT(
      Load("libno_such_cuda.so"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("libno_such_cuda.so")));
  EXPECT_THAT(Load("libdl.so.2"), StatusIs(absl::StatusCode::kNotFound,
                                           HasSubstr("no cuModuleLoadData")));
  setenv("FAKE_CUDA_FAILS", "cuModuleLoadData", 1);
  EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kInternal,
                               HasSubstr("CUDA error 719")));
  unsetenv("FAKE_CUDA_FAILS");
  for (const std::string name : {"rotary_bf16", "rms_norm_backward_f32_8"}) {
    setenv("FAKE_CUDA_LACKS", name.c_str(), 1);
    EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kInternal,
                                 HasSubstr("looking up " + name)));
  }
  EXPECT_THAT(
      LoadDriverKernels({.image = {}, .stream = {}, .library = kFake}),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("without nvcc")));
}

TEST(FusedImageTest, IsWhatNvccMade) {
  const absl::Span<const uint8_t> image = FusedImage();
#ifdef SHARDPLANE_HAS_NVCC
  // The magic number of fat binaries.
  EXPECT_THAT(image.first(4), ElementsAre(0x50, 0xed, 0x55, 0xba));
#else
  EXPECT_THAT(image, IsEmpty());
#endif
}

}  // namespace
}  // namespace shardplane
