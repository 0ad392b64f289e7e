#include "common/float16.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>

#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

TEST(Half, AllBitsComeBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << bits;
    } else {
      ASSERT_EQ(FloatToHalf(value), bits);
    }
  }
}

TEST(BFloat16, AllBitsComeBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = BFloat16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(value)))) << bits;
    } else {
      ASSERT_EQ(FloatToBFloat16(value), bits);
    }
  }
}

struct Case {
  std::string name;
  float value;
  uint16_t half;
  uint16_t bfloat16;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class RoundingTest : public ::testing::TestWithParam<Case> {};

TEST_P(RoundingTest, GoesToNearestTiesToEven) {
  EXPECT_EQ(FloatToHalf(GetParam().value), GetParam().half);
  EXPECT_EQ(FloatToBFloat16(GetParam().value), GetParam().bfloat16);
}

// As torch's .to(torch.float16) and .to(torch.bfloat16) have them.
INSTANTIATE_TEST_SUITE_P(
    All, RoundingTest,
    ::testing::Values(
        Case{"one", 1.0f, 0x3c00, 0x3f80},
        Case{"minus two", -2.0f, 0xc000, 0xc000},
        Case{"a third", 1.0f / 3, 0x3555, 0x3eab},
        Case{"half tie to even below", 1.0f + 0x1p-11f, 0x3c00, 0x3f80},
        Case{"half tie to even above", 1.0f + 3 * 0x1p-11f, 0x3c02, 0x3f80},
        Case{"bfloat16 tie to even below", 1.0f + 0x1p-8f, 0x3c04, 0x3f80},
        Case{"bfloat16 tie to even above", 1.0f + 3 * 0x1p-8f, 0x3c0c, 0x3f82},
        Case{"largest half", 65504.0f, 0x7bff, 0x4780},
        Case{"just below half's infinity", 65519.0f, 0x7bff, 0x4780},
        Case{"half's infinity", 65520.0f, 0x7c00, 0x4780},
        Case{"smallest normal half", 0x1p-14f, 0x0400, 0x3880},
        Case{"smallest half", 0x1p-24f, 0x0001, 0x3380},
        Case{"half of the smallest half", 0x1p-25f, 0x0000, 0x3300},
        Case{"minus zero", -0.0f, 0x8000, 0x8000},
        Case{"infinity", std::numeric_limits<float>::infinity(), 0x7c00,
             0x7f80}),
    CaseName<Case>);

}  // namespace
}  // namespace shardplane
