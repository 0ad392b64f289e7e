#include "common/placement.h"

#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

struct TextCase {
  std::string name;
  Placement placement;
  std::string text;
};
void PrintTo(const TextCase& c, std::ostream* os) { *os << c.name; }

class PlacementTextTest : public ::testing::TestWithParam<TextCase> {};

TEST_P(PlacementTextTest, IsAsPyTorchWritesIt) {
  EXPECT_EQ(ToString(GetParam().placement), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    All, PlacementTextTest,
    ::testing::Values(
        TextCase{"replicate", Replicate{}, "R"},
        TextCase{"shard", Shard{1}, "S(1)"},
        TextCase{"shard from the end", Shard{-1}, "S(-1)"},
        TextCase{"blocks", Shard{0, Blocks::Of({{48}, {16}})}, "S(0: 48, 16)"},
        TextCase{"heads, shared ones",
                 Shard{-1, Blocks::Of({{48, 8}, {16, 8, 2}})},
                 "S(-1: 6*8, 2*8/2)"},
        TextCase{"sums of shared heads",
                 Shard{0, Blocks::Of({{16, 8, 2, true}})}, "S(0: 2*8/2+)"},
        TextCase{"partial sum", Partial{}, "P(sum)"},
        TextCase{"partial max", Partial{ReduceOp::kMax}, "P(max)"},
        TextCase{"partial min", Partial{ReduceOp::kMin}, "P(min)"}),
    CaseName<TextCase>);

TEST(BlocksTest, AreEqualWhereTheirListsAre) {
  EXPECT_EQ(Blocks::Of({{48}, {16, 8, 2}}), Blocks::Of({{48}, {16, 8, 2}}));
  EXPECT_NE(Blocks::Of({{48}, {16, 8, 2}}), Blocks::Of({{48}, {16, 8, 1}}));
  EXPECT_NE(Blocks::Of({{48}}), Blocks::Of({{48, 1, 1, true}}));
  EXPECT_EQ(Blocks::Of({}), Blocks{});
  EXPECT_EQ(Blocks::Of({{48}, {16, 8}}).size(), 64);
  EXPECT_LE(sizeof(Placement), 32);  // every value of a program has some
}

TEST(BlocksTest, WithReplicasMayBePartial) {
  const Blocks shared = Blocks::Of({{48, 8}, {16, 8, 2}});
  const Blocks sums = Blocks::Of({{48, 8}, {16, 8, 2, true}});

  EXPECT_TRUE(shared.has_replicas());
  EXPECT_FALSE(shared.partial());
  EXPECT_EQ(shared.WithPartial(true), sums);
  EXPECT_EQ(sums.WithPartial(false), shared);
  EXPECT_TRUE(sums.partial());
  const Blocks alone = Blocks::Of({{48, 8}});
  EXPECT_EQ(alone.WithPartial(true), alone);
  EXPECT_TRUE(HasReplicas(Shard{0, shared}));
  EXPECT_TRUE(HasReplicas(Replicate{}));
  EXPECT_FALSE(HasReplicas(Shard{0, alone}));
  EXPECT_FALSE(HasReplicas(Partial{}));
}

// Eight heads of 4, of which each half of four ranks shares one half.
TEST(RefinesTest, SharesOutWhatGroupsShare) {
  const Shard shared{1, Blocks::Of({{32, 16, 2}})};

  EXPECT_TRUE(Refines(Shard{1}, shared));
  EXPECT_TRUE(Refines(Shard{1, Blocks::Of({{32, 8}})}, shared));
  // A unit that two ranks cannot halve.
  EXPECT_FALSE(Refines(Shard{1, Blocks::Of({{32, 16}})}, shared));
  EXPECT_FALSE(Refines(Shard{0}, shared));
  EXPECT_FALSE(Refines(shared, shared));
  EXPECT_FALSE(Refines(shared, Shard{1}));
  EXPECT_FALSE(Refines(Shard{1, Blocks::Of({{16}, {16}})}, shared));
}

TEST(RefinesTest, OtherBlocksStay) {
  const Shard shared{0, Blocks::Of({{32}, {8, 4, 2}})};

  EXPECT_TRUE(Refines(Shard{0, Blocks::Of({{32}, {8}})}, shared));
  EXPECT_FALSE(Refines(Shard{0, Blocks::Of({{32, 8}, {8}})}, shared));
}

struct NormalizeCase {
  std::string name;
  Placement placement;
  int tensor_rank;
  std::optional<Placement> expected;  // nullopt: out of range
};
void PrintTo(const NormalizeCase& c, std::ostream* os) { *os << c.name; }

class NormalizeTest : public ::testing::TestWithParam<NormalizeCase> {};

TEST_P(NormalizeTest, CountsFromTheFront) {
  const auto result = Normalize(GetParam().placement, GetParam().tensor_rank);

  if (GetParam().expected.has_value()) {
    EXPECT_THAT(result, IsOkAndHolds(*GetParam().expected));
  } else {
    EXPECT_THAT(result,
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("got: " + ToString(GetParam().placement))));
    EXPECT_THAT(result, HasReason("SHARD_DIM_OUT_OF_RANGE"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, NormalizeTest,
    ::testing::Values(NormalizeCase{"last of two", Shard{-1}, 2, Shard{1}},
                      NormalizeCase{"first from the end", Shard{-2}, 2,
                                    Shard{0}},
                      NormalizeCase{"in range", Shard{1}, 2, Shard{1}},
                      NormalizeCase{"too large", Shard{2}, 2, std::nullopt},
                      NormalizeCase{"too small", Shard{-3}, 2, std::nullopt},
                      NormalizeCase{"of a scalar", Shard{0}, 0, std::nullopt},
                      NormalizeCase{"replicate", Replicate{}, 0, Replicate{}},
                      NormalizeCase{"partial", Partial{}, 0, Partial{}}),
    CaseName<NormalizeCase>);

TEST(Placement, Predicates) {
  EXPECT_TRUE(IsReplicate(Replicate{}));
  EXPECT_TRUE(IsPartial(Partial{}));
  EXPECT_EQ(ShardDim(Shard{2}), 2);
  EXPECT_EQ(ShardDim(Replicate{}), -1);
}

}  // namespace
}  // namespace shardplane
