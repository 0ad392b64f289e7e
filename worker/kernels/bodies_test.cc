#include "worker/kernels/bodies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "tests/matchers.h"
#include "worker/kernels/host_kernels.h"

namespace shardplane {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;

uint16_t BitsOf(float x) {
  Bf16 rounded;
  Store(x, rounded);
  return rounded.bits;
}

TEST(Bf16Test, RoundsToTheNearestAndTiesToEven) {
  const float step = std::ldexp(1.0f, -7);  // of bf16, from 1 on
  EXPECT_EQ(BitsOf(1), 0x3f80);
  EXPECT_EQ(BitsOf(1 + step / 2), 0x3f80);
  EXPECT_EQ(BitsOf(1 + step / 2 + step / 64), 0x3f81);
  EXPECT_EQ(BitsOf(1 + 3 * step / 2), 0x3f82);
  EXPECT_EQ(BitsOf(-1), 0xbf80);
  EXPECT_EQ(BitsOf(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(BitsOf(INFINITY), 0x7f80);
  EXPECT_TRUE(std::isnan(Rounded<Bf16>(NAN)));
  EXPECT_EQ(Rounded<Bf16>(3), 3);
}

TEST(PacksOfTest, IsTheSmallestThatHolds) {
  EXPECT_EQ(PacksOf(1, false, Element::kF32), 1);
  EXPECT_EQ(PacksOf(256, false, Element::kF32), 1);
  EXPECT_EQ(PacksOf(257, false, Element::kF32), 2);
  EXPECT_EQ(PacksOf(2048, false, Element::kF32), 8);
  EXPECT_EQ(PacksOf(2049, false, Element::kF32), 0);
  EXPECT_EQ(PacksOf(8192, true, Element::kF32), 8);
  EXPECT_EQ(PacksOf(8196, true, Element::kF32), 0);
  EXPECT_EQ(PacksOf(4096, true, Element::kBf16), 2);
  EXPECT_EQ(PacksOf(16384, true, Element::kBf16), 8);
}

// Fewer blocks than there is work: each goes on where all have begun.
TEST(SwigluTest, EveryElementOnceWhateverTheBlocks) {
  for (const auto& [count, packed] :
       {std::pair<int64_t, bool>{5000, true}, {5003, false}}) {
    alignas(kPackBytes) static float gate[5003];
    alignas(kPackBytes) static float up[5003];
    alignas(kPackBytes) static float out[5004];
    for (int64_t i = 0; i < count; ++i) {
      gate[i] = 0;
      up[i] = 1;
    }
    gate[count - 1] = 100;
    for (const int64_t blocks : {1, 2, 7}) {
      std::fill(out, out + 5004, -1);
      ASSERT_THAT(HostKernels().Launch(Element::kF32, blocks,
                                       SwigluArgs{.gate = gate,
                                                  .up = up,
                                                  .out = out,
                                                  .count = count,
                                                  .packed = packed}),
                  IsOk());
      EXPECT_THAT(std::vector<float>(out, out + count - 1), Each(0.0f));
      EXPECT_THAT(out[count - 1], FloatEq(100));
      EXPECT_EQ(out[count], -1);
    }
  }
}

// Two rows of three classes, which are 4 ... 6 of more.
TEST(CrossEntropyTest, TargetsElsewhereAndIgnoredOnesPickNothing) {
  const float logits[] = {0, 1, 2, 3, 3, 3, 7, 7, 7, 1, 1, 0};
  const float max[] = {2, 3, 7, 1};
  const int64_t target[] = {5, 3, 7, 6};
  float sums[4], picked[4];
  const CrossEntropyArgs args{.logits = logits,
                              .max = max,
                              .target = target,
                              .sums = sums,
                              .picked = picked,
                              .rows = 4,
                              .columns = 3,
                              .offset = 4,
                              .ignore_index = 6};
  ASSERT_THAT(HostKernels().Launch(Element::kF32, 3, args), IsOk());
  EXPECT_THAT(picked, ElementsAre(-1, 0, 0, 0));
  EXPECT_THAT(
      sums, ElementsAre(FloatNear(1 + std::exp(-1.f) + std::exp(-2.f), 1e-6), 3,
                        3, FloatNear(2 + std::exp(-1.f), 1e-6)));
}

TEST(CrossEntropyTest, ARowsOwnMax) {
  const float logits[] = {-INFINITY, 1, 2, NAN, 3, 3};
  const int64_t target[] = {1, 1};
  float own_max[2], sums[2], picked[2];
  const CrossEntropyArgs args{.logits = logits,
                              .own_max = own_max,
                              .target = target,
                              .sums = sums,
                              .picked = picked,
                              .rows = 2,
                              .columns = 3,
                              .ignore_index = -100};
  ASSERT_THAT(HostKernels().Launch(Element::kF32, 1, args), IsOk());
  EXPECT_EQ(own_max[0], 2);
  EXPECT_EQ(picked[0], -1);
  EXPECT_FLOAT_EQ(sums[0], 1 + std::exp(-1.f));
  EXPECT_TRUE(std::isnan(own_max[1]));
}

}  // namespace
}  // namespace shardplane
