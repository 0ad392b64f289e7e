#include "common/dim_structure.h"

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

// "6 8h | 3!": parts of factors, "!" whole, "h" a head.
std::string Text(const DimStructure& dim) {
  return absl::StrJoin(
      dim.parts(), " | ", [](std::string* out, const DimPart& part) {
        absl::StrAppend(
            out, absl::StrJoin(part, " ", [](std::string* o, DimFactor f) {
              static constexpr const char* kMarks[] = {"", "!", "h"};
              absl::StrAppend(o, f.size, kMarks[static_cast<int>(f.wholeness)]);
            }));
      });
}
std::string Text(const std::optional<std::vector<DimStructure>>& dims) {
  if (!dims.has_value()) return "none";
  return absl::StrJoin(*dims, "; ",
                       [](std::string* out, const DimStructure& dim) {
                         absl::StrAppend(out, Text(dim));
                       });
}

DimStructure Whole(int64_t size) {
  return DimStructure::Of(size, Wholeness::kWhole);
}
DimStructure Head(int64_t size) {
  return DimStructure::Of(size, Wholeness::kHead);
}
DimStructure Free(int64_t size) { return DimStructure::Of(size); }
DimStructure Product(std::vector<DimStructure> factors) {
  return DimStructure::Product(factors);
}
DimStructure Sum(std::vector<DimStructure> parts) {
  return DimStructure::Sum(parts);
}

TEST(DimStructure, OfOneFactor) {
  EXPECT_TRUE(Free(8).IsPlain());
  EXPECT_TRUE(Free(1).IsPlain());
  EXPECT_FALSE(Whole(8).IsPlain());
  EXPECT_EQ(Product({Free(6), Head(8)}).size(), 48);
  EXPECT_EQ(Sum({Free(6), Free(0), Head(8)}).size(), 14);
}

TEST(DimStructure, ProductsKeepPartsInFront) {
  EXPECT_EQ(Text(Product({Sum({Free(6), Free(2)}), Head(8)})), "6 8h | 2 8h");
  // Behind another factor they are many stretches.
  EXPECT_EQ(Text(Product({Free(4), Sum({Free(6), Free(2)})})), "4 8!");
}

TEST(DimStructure, AndHasTheEdgesOfBoth) {
  EXPECT_EQ(Text(Free(48).And(Product({Free(6), Head(8)}))), "6 8h");
  EXPECT_EQ(
      Text(Product({Free(24), Free(2)}).And(Product({Free(6), Whole(8)}))),
      "6 4! 2!");
  EXPECT_EQ(
      Text(Sum({Free(32), Free(16)}).And(Sum({Free(32), Free(8), Free(8)}))),
      "32 | 8 | 8");
  EXPECT_EQ(Text(Sum({Product({Free(4), Head(8)}), Free(16)})
                     .And(Sum({Free(32), Product({Free(2), Head(8)})}))),
            "4 8h | 2 8h");
}

TEST(DimStructure, AndOfAWholeIsWhole) {
  EXPECT_EQ(Text(Whole(8).And(Sum({Free(4), Free(4)}))), "8!");
  EXPECT_EQ(Text(Sum({Free(4), Free(4)}).And(Head(8))), "8h");
  EXPECT_EQ(Text(Whole(8).And(Head(8))), "8h");
}

TEST(DimStructure, AndOfEdgesThatDifferIsWhole) {
  EXPECT_EQ(Text(Product({Free(6), Free(4)}).And(Product({Free(4), Free(6)}))),
            "24!");
  EXPECT_EQ(Text(Product({Free(6), Free(8)}).And(Sum({Free(32), Free(16)}))),
            "48!");
}

TEST(DimStructure, IsFactored) {
  EXPECT_EQ(Text(Product({Free(3), Free(6), Head(8)}).Factored({18, 8})),
            "3 6; 8h");
  EXPECT_EQ(Text(Free(48).Factored({6, 8})), "6; 8");
  EXPECT_EQ(Text(Whole(48).Factored({6, 8})), "6!; 8!");
  EXPECT_EQ(Text(Product({Free(6), Free(8)}).Factored({4, 12})), "none");
  EXPECT_EQ(Text(Sum({Product({Free(8), Head(4)}), Product({Free(2), Head(4)})})
                     .Factored({10, 4})),
            "8 | 2; 4h");
  EXPECT_EQ(Text(Sum({Free(6), Free(4)}).Factored({5, 2})), "3 | 2; 2");
  EXPECT_EQ(Text(Sum({Free(5), Free(5)}).Factored({5, 2})), "none");
}

TEST(DimStructure, IsParted) {
  EXPECT_EQ(Text(Free(48).Parted({32, 16})), "32; 16");
  EXPECT_EQ(Text(Sum({Free(32), Product({Free(2), Head(8)})}).Parted({32, 16})),
            "32; 2 8h");
  EXPECT_EQ(Text(Sum({Free(32), Free(16)}).Parted({40, 8})), "32 | 8; 8");
  EXPECT_EQ(Text(Product({Free(6), Free(8)}).Parted({24, 24})), "none");
  EXPECT_EQ(Text(Free(4).Parted({4, 0})), "4; 0");
}

std::string Over(const DimStructure& dim, int ranks,
                 DimStructure::FewHeads few = DimStructure::FewHeads::kShared) {
  const std::optional<Blocks> blocks = dim.BlocksOver(ranks, few);
  return blocks.has_value() ? ToString(*blocks) : "none";
}

TEST(BlocksOver, LeavesPlainCutsPlain) {
  EXPECT_EQ(Over(Free(17), 4), "");
  EXPECT_EQ(Over(Free(2), 4), "");  // two features are no heads
  EXPECT_EQ(Over(Product({Free(8), Head(4)}), 4), "");
}

TEST(BlocksOver, KeepsHeadsWhole) {
  EXPECT_EQ(Over(Product({Free(6), Head(8)}), 4), "3*16");
  EXPECT_EQ(Over(Product({Free(3), Head(8)}), 2), "3*8");
  EXPECT_EQ(Over(Product({Whole(3), Free(6), Head(8)}), 2), "48, 48, 48");
}

TEST(BlocksOver, SharesHeadsThatAreFewerThanRanks) {
  EXPECT_EQ(Over(Product({Free(2), Head(8)}), 4), "2*8/2");
  EXPECT_EQ(Over(Head(8), 4), "1*8/4");
  EXPECT_EQ(Over(Product({Whole(3), Head(8)}), 2), "1*8/2, 1*8/2, 1*8/2");
  EXPECT_EQ(Over(Sum({Product({Free(8), Head(4)}), Head(4), Head(4)}), 4),
            "32, 1*4/4, 1*4/4");
}

TEST(BlocksOver, OrLeavesRanksWithoutOne) {
  const auto few = DimStructure::FewHeads::kNotShared;
  EXPECT_EQ(Over(Product({Free(2), Head(8)}), 4, few), "2*8");
  EXPECT_EQ(Over(Head(8), 4, few), "1*8");
  EXPECT_EQ(Over(Product({Free(2), Free(4), Head(8)}), 4, few), "");
}

// Eight queries of two keys over four ranks: two each.
TEST(BlocksOver, SharesOutTheQueriesOfAKey) {
  EXPECT_EQ(Over(Product({Free(2), Free(4), Head(8)}), 4), "");
  // Three of each key do not share out; each rank has those of one, or none.
  EXPECT_EQ(Over(Product({Free(2), Free(3), Head(8)}), 4), "2*24");
  EXPECT_EQ(Over(Product({Free(3), Free(4), Head(8)}), 4), "3*32");
}

TEST(BlocksOver, OfWhatIsWholeThereAreNone) {
  EXPECT_EQ(Over(Whole(16), 4), "none");
  EXPECT_EQ(Over(Sum({Free(16), Whole(16)}), 4), "none");
  EXPECT_EQ(Over(Product({Whole(65), Free(4)}), 4), "none");  // too many blocks
}

}  // namespace
}  // namespace shardplane
