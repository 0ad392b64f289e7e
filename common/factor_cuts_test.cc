#include "common/factor_cuts.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "common/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

TEST(CanonicalBlocks, NameAPlainCutNothing) {
  EXPECT_TRUE(CanonicalBlocks({{16}}, 4).empty());
  EXPECT_TRUE(CanonicalBlocks({{16, 4}}, 4).empty());
  EXPECT_TRUE(CanonicalBlocks({{16, 4}, {0}}, 2).empty());
  EXPECT_TRUE(CanonicalBlocks({}, 4).empty());
  // One rank has it all, however it is taken apart.
  EXPECT_TRUE(CanonicalBlocks({{8}, {4}}, 1).empty());
}

TEST(CanonicalBlocks, KeepUnitsThatMatter) {
  EXPECT_EQ(CanonicalBlocks({{24, 8}}, 2), Blocks::Of({{24, 8}}));
  EXPECT_EQ(CanonicalBlocks({{24, 8}}, 4), CanonicalBlocks({{24, 4}}, 4));
  EXPECT_EQ(CanonicalBlocks({{24, 4}}, 4), Blocks::Of({{24, 8}}));
  EXPECT_EQ(CanonicalBlocks({{24, 8}, {16, 8}}, 2),
            Blocks::Of({{24, 8}, {16}}));
  EXPECT_EQ(CanonicalBlocks({{16, 8, 2}}, 4), Blocks::Of({{16, 8, 2}}));
}

TEST(FactorPlaces, AreFoundInDims) {
  const std::vector<Factor> factors = {{3}, {6}, {8}, {5}};
  const FactorPlace heads = PlaceOf(factors, {{3}, {0, 1, 2}}, 1);

  EXPECT_EQ(heads.dim, 1);
  EXPECT_EQ(heads.before, 3);
  EXPECT_EQ(heads.behind, 8);
  EXPECT_FALSE(heads.twice);
  EXPECT_EQ(PlaceOf(factors, {{3}}, 1).dim, -1);
  EXPECT_TRUE(PlaceOf(factors, {{1}, {1}}, 1).twice);
}

// A factor in a dim of its own size, before and behind others, and back.
struct PlaceCase {
  std::string name;
  Blocks factor;
  int64_t size = 1;
  FactorPlace place;
  int ranks = 2;
  std::string dim;
};

class FactorCuts : public testing::TestWithParam<PlaceCase> {};

TEST_P(FactorCuts, GoThereAndBack) {
  const PlaceCase& c = GetParam();
  const Blocks dim = ToDim(c.factor, c.size, c.place, c.ranks);

  EXPECT_EQ(ToString(dim), c.dim);
  EXPECT_EQ(ToFactor(dim, c.size, c.place, c.ranks), c.factor);
}

FactorPlace Between(int64_t before, int64_t behind) {
  return {.dim = 0, .before = before, .behind = behind};
}

INSTANTIATE_TEST_SUITE_P(
    All, FactorCuts,
    testing::Values(
        PlaceCase{"alone", {}, 5, Between(1, 1), 2, ""},
        PlaceCase{"aligned", {}, 6, Between(1, 8), 2, ""},
        PlaceCase{"heads that do not divide", {}, 6, Between(1, 8), 4, "3*16"},
        PlaceCase{"heads of three", {}, 6, Between(3, 8), 2, "48, 48, 48"},
        PlaceCase{"uneven heads of three", {}, 3, Between(2, 8), 2, "3*8, 3*8"},
        PlaceCase{"shared heads", Blocks::Of({{2, 1, 2}}), 2, Between(1, 8), 4,
                  "2*8/2"},
        PlaceCase{"heads of fused projections", Blocks::Of({{8}, {2}, {2}}), 12,
                  Between(1, 4), 2, "32, 8, 8"},
        PlaceCase{"one head that all share", Blocks::Of({{1, 1, 4}}), 1,
                  Between(1, 8), 4, "1*8/4"}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

// Units of 8 over four ranks are one each, and none: so are six of 4.
TEST(ToFactor, GoesByWhatRanksHave) {
  EXPECT_EQ(ToFactor(Blocks::Of({{24, 8}}), 3, Between(1, 8), 4), Blocks{});
  EXPECT_EQ(ToFactor(Blocks::Of({{24, 8}}), 6, Between(1, 4), 4), Blocks{});
}

TEST(ToFactor, RefusesCutsWithinAFactor) {
  // 48 elements over 4 are 12 each: one head and a half.
  EXPECT_EQ(ToFactor({}, 6, Between(1, 8), 4), std::nullopt);
  EXPECT_EQ(ToFactor({}, 6, Between(3, 8), 2), std::nullopt);
  EXPECT_EQ(ToFactor(Blocks::Of({{24}, {16}}), 5, Between(1, 8), 2),
            std::nullopt);
  // Not the same in each of the two.
  EXPECT_EQ(ToFactor(Blocks::Of({{24}, {24, 8}}), 3, Between(2, 8), 2),
            std::nullopt);
}

TEST(ToParts, GivesEachPartItsBlocks) {
  const auto parts =
      ToParts(Blocks::Of({{32}, {8, 4, 2}, {8, 4, 2}}), 48, {32, 8, 8}, 4);

  ASSERT_TRUE(parts.has_value());
  EXPECT_THAT(*parts, ElementsAre(Blocks{}, Blocks::Of({{8, 4, 2}}),
                                  Blocks::Of({{8, 4, 2}})));
  EXPECT_EQ(ToParts(Blocks::Of({{40}, {8}}), 48, {32, 16}, 4), std::nullopt);
  EXPECT_EQ(ToParts({}, 48, {24, 24}, 4), std::nullopt);
  // Several blocks in one part stay.
  EXPECT_THAT(*ToParts(Blocks::Of({{4}, {4}, {8}}), 16, {8, 8, 0}, 2),
              ElementsAre(Blocks::Of({{4}, {4}}), Blocks{}, Blocks{}));
}

}  // namespace
}  // namespace shardplane
