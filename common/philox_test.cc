#include "common/philox.h"

#include <array>
#include <cstdint>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

// The known answers that come with Random123.
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(Philox({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  const uint32_t ones = 0xffffffff;
  EXPECT_THAT(Philox({ones, ones, ones, ones}, {ones, ones}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                     {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxLanes, AreCountersSideBySide) {
  PhiloxLanes<3> lanes;
  for (uint32_t i = 0; i < 3; ++i) {
    for (uint32_t j = 0; j < 4; ++j) lanes.word[j][i] = 1000 * i + j;
  }

  lanes.Run({17, 0xfffffffe});

  for (uint32_t i = 0; i < 3; ++i) {
    const std::array<uint32_t, 4> words = Philox(
        {1000 * i, 1000 * i + 1, 1000 * i + 2, 1000 * i + 3}, {17, 0xfffffffe});
    EXPECT_THAT(words, ElementsAre(lanes.word[0][i], lanes.word[1][i],
                                   lanes.word[2][i], lanes.word[3][i]));
  }
}

}  // namespace
}  // namespace shardplane
