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

// Rows of more classes than there are lanes, so that a lane sees several.
class LossTest : public testing::Test {
 protected:
  static constexpr int64_t kRows = 5, kColumns = 3 * kLanes;

  // x of row r.
  float* row(int64_t r) { return logits_ + r * kColumns; }
  absl::Status Run(bool packed) {
    return HostKernels().Launch(Element::kF32, 2,
                                LossArgs{.logits = logits_,
                                         .target = target_,
                                         .max = max_,
                                         .sums = sums_,
                                         .losses = losses_,
                                         .counts = counts_,
                                         .rows = kRows,
                                         .columns = kColumns,
                                         .ignore_index = 7,
                                         .packed = packed});
  }

  alignas(kPackBytes) float logits_[kRows * kColumns] = {};
  int64_t target_[kRows] = {1, 1, 1, 7, 700};
  float max_[kRows], sums_[kRows], losses_[kRows], counts_[kRows];
};

TEST_F(LossTest, InOnePass) {
  for (const bool packed : {false, true}) {
    std::fill(row(0), row(1), -INFINITY);  // but for two
    row(0)[1] = 1;
    row(0)[700] = 2;
    std::fill(row(1), row(2), -INFINITY);
    row(2)[5] = NAN;
    row(4)[3] = 100;  // what came before weighs nothing
    row(4)[700] = 100;
    ASSERT_THAT(Run(packed), IsOk());
    EXPECT_EQ(max_[0], 2);
    EXPECT_FLOAT_EQ(sums_[0], 1 + std::exp(-1.f));
    EXPECT_FLOAT_EQ(losses_[0], std::log(1 + std::exp(-1.f)) + 1);
    EXPECT_EQ(max_[1], -INFINITY);
    EXPECT_TRUE(std::isnan(losses_[1]));
    EXPECT_TRUE(std::isnan(max_[2]));
    EXPECT_TRUE(std::isnan(losses_[2]));
    EXPECT_EQ(losses_[3], 0);
    EXPECT_EQ(sums_[3], kColumns);
    EXPECT_EQ(sums_[4], 2);
    EXPECT_FLOAT_EQ(losses_[4], std::log(2.f));
    EXPECT_THAT(counts_, ElementsAre(1, 1, 1, 0, 1));
  }
}

}  // namespace
}  // namespace shardplane
