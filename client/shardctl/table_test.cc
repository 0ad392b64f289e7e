#include "client/shardctl/table.h"

#include "gtest/gtest.h"

namespace shardplane {
namespace {

Table Example() {
  Table table({{"NAME"},
               {"RANK", Column::Align::kRight},
               {"ADDRESS", Column::Align::kLeft, Column::Shown::kWide},
               {"STATE"}});
  table.Add({"worker-0", "0", "here", "READY"});
  table.Add({"w", "10", "there", "LOST"});
  return table;
}

TEST(TableTest, ColumnsAreAsWideAsWhatIsInThem) {
  EXPECT_EQ(Example().Text({}),
            "NAME       RANK   STATE\n"
            "worker-0      0   READY\n"
            "w            10   LOST\n");
}

TEST(TableTest, WideOnesHaveMoreColumns) {
  EXPECT_EQ(Example().Text({.wide = true}),
            "NAME       RANK   ADDRESS   STATE\n"
            "worker-0      0   here      READY\n"
            "w            10   there     LOST\n");
}

TEST(TableTest, WithoutTitlesRowsAreNarrower) {
  EXPECT_EQ(Example().Text({.headers = false}),
            "worker-0    0   READY\n"
            "w          10   LOST\n");
}

TEST(TableTest, LinesAreCutAtTheTerminalsEdge) {
  EXPECT_EQ(Example().Text({.width = 12}),
            "NAME       …\n"
            "worker-0   …\n"
            "w          …\n");
}

TEST(TableTest, LettersCountAndNotBytes) {
  Table table({{"A"}, {"B"}});
  table.Add({"×12", "x"});
  EXPECT_EQ(table.Text({}), "A     B\n×12   x\n");
  EXPECT_EQ(DisplayWidth("×12…"), 4u);
}

TEST(TableTest, ARowThatComesLaterStandsInTheSameColumns) {
  Table table = Example();
  table.Add({"x", "1", "", "READY"});
  EXPECT_EQ(table.LastLine({}), "x             1   READY\n");
}

TEST(TableTest, MissingCellsAreEmpty) {
  Table table({{"A"}, {"B"}});
  table.Add({"x"});
  EXPECT_EQ(table.Text({}), "A   B\nx\n");
}

}  // namespace
}  // namespace shardplane
