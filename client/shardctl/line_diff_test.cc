#include "client/shardctl/line_diff.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(LineDiffTest, NothingDiffers) {
  EXPECT_EQ(LineDiff("a\nb\n", "a\nb\n", "x", "y"), "");
}

TEST(LineDiffTest, AChangeWithItsNeighbours) {
  EXPECT_EQ(
      LineDiff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n",
               "x", "y"),
      "--- x\n+++ y\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
}

TEST(LineDiffTest, AllIsNew) {
  EXPECT_EQ(LineDiff("", "a\nb\n", "/dev/null", "y"),
            "--- /dev/null\n+++ y\n@@ -0,0 +1,2 @@\n+a\n+b\n");
}

TEST(LineDiffTest, ChangesFarApartAreTwoHunks) {
  std::string from;
  for (int i = 0; i < 30; ++i) absl::StrAppend(&from, i, "\n");
  std::string to = from;
  to.replace(to.find("2\n"), 1, "two");
  to.replace(to.find("25\n"), 2, "x");
  const std::string diff = LineDiff(from, to, "x", "y");
  EXPECT_TRUE(absl::StrContains(diff, "@@ -1,6 +1,6 @@\n"));
  EXPECT_TRUE(absl::StrContains(diff, "@@ -23,7 +23,7 @@\n"));
}

// Applies a diff with all lines as context: what stays, and what comes.
std::string Applied(const std::string& from, const std::string& diff) {
  std::vector<std::string> lines = absl::StrSplit(from, '\n');
  std::vector<std::string> result;
  size_t used = 0;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(diff, '\n'))) {
    size_t begin = 0;
    if (sscanf(line.c_str(), "@@ -%zu", &begin) == 1) {
      const bool adds_alone = absl::StrContains(line, ",0 +");
      const size_t until = adds_alone ? begin : begin - 1;
      while (used < until) result.push_back(lines[used++]);
    } else if (absl::StartsWith(line, "---") || absl::StartsWith(line, "+++") ||
               line.empty()) {
      continue;
    } else if (line[0] == '+') {
      result.push_back(line.substr(1));
    } else {
      EXPECT_EQ(lines[used], line.substr(1));
      if (line[0] == ' ') result.push_back(lines[used]);
      ++used;
    }
  }
  while (used < lines.size()) result.push_back(lines[used++]);
  std::string text;
  for (size_t i = 0; i < result.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "\n", result[i]);
  }
  return text;
}

TEST(LineDiffTest, ADiffLeadsFromOneToTheOther) {
  constexpr unsigned kSeed = 7;
  std::mt19937 random(kSeed);
  for (int round = 0; round < 300; ++round) {
    std::string from;
    std::string to;
    for (unsigned i = random() % 20; i > 0; --i) {
      absl::StrAppend(&from, "k", random() % 4, "\n");
    }
    for (unsigned i = random() % 20; i > 0; --i) {
      absl::StrAppend(&to, "k", random() % 4, "\n");
    }
    const std::string diff = LineDiff(from, to, "x", "y");
    EXPECT_EQ(Applied(from, diff), to)
        << "seed " << kSeed << " round " << round << "\n"
        << diff;
  }
}

}  // namespace
}  // namespace shardplane
