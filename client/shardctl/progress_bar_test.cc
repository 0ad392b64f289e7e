#include "client/shardctl/progress_bar.h"

#include <sstream>

#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(ProgressBarTest, Bars) {
  EXPECT_EQ(BarText("placing", 0.45, "9 of 20", 0),
            "placing [#########...........]  45%  9 of 20");
  EXPECT_EQ(BarText("p", 1, "", 0), "p [####################] 100%");
  EXPECT_EQ(BarText("p", 7, "", 0), "p [####################] 100%");
  EXPECT_EQ(BarText("p", 0.999, "", 0), "p [###################.]  99%");
  EXPECT_EQ(BarText("p", 0, "", 8), "p [.....");
}

TEST(ProgressBarTest, OneLineOnATerminal) {
  std::ostringstream out;
  {
    ProgressLine line(&out, true);
    line.Show("a");
    line.Show("b");
  }
  EXPECT_EQ(out.str(), "\ra\033[K\rb\033[K\n");
}

TEST(ProgressBarTest, NothingElsewhere) {
  std::ostringstream out;
  ProgressLine(&out, false).Show("a");
  ProgressLine(&out, true);
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace shardplane
