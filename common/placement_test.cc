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
        TextCase{"partial sum", Partial{}, "P(sum)"},
        TextCase{"partial max", Partial{ReduceOp::kMax}, "P(max)"},
        TextCase{"partial min", Partial{ReduceOp::kMin}, "P(min)"}),
    CaseName<TextCase>);

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
