#include "common/closest_name.h"

#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

struct Case {
  std::string name;
  std::string wrong;
  std::vector<std::string> names;
  std::string closest;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.wrong; }

class ClosestNameTest : public ::testing::TestWithParam<Case> {};

TEST_P(ClosestNameTest, IsTheOneMeant) {
  EXPECT_EQ(ClosestName(GetParam().wrong, GetParam().names),
            GetParam().closest);
}

INSTANTIATE_TEST_SUITE_P(
    All, ClosestNameTest,
    ::testing::Values(
        Case{"one letter wrong", "net3", {"relu", "net1"}, "net1"},
        Case{"two letters swapped", "weihgt", {"bias", "weight"}, "weight"},
        Case{"the first of two alike", "net3", {"net1", "net2"}, "net1"},
        Case{"the closer of two", "layer", {"lays", "layers"}, "layers"},
        Case{"too far off", "net1", {"embedding"}, ""},
        Case{"nothing but edits", "x", {"y"}, ""},
        Case{"no names", "net1", {}, ""}),
    CaseName<Case>);

}  // namespace
}  // namespace shardplane
