#include "common/glob.h"

#include <ostream>
#include <string>

#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

struct Case {
  std::string name;
  std::string pattern;
  std::string text;
  bool matches;
};
void PrintTo(const Case& c, std::ostream* os) {
  *os << c.pattern << " on " << c.text;
}

class GlobTest : public ::testing::TestWithParam<Case> {};

TEST_P(GlobTest, MatchesAsFnmatchcase) {
  EXPECT_EQ(GlobMatch(GetParam().pattern, GetParam().text), GetParam().matches);
}

// What Python's fnmatch.fnmatchcase says of each.
INSTANTIATE_TEST_SUITE_P(
    All, GlobTest,
    ::testing::Values(
        Case{"literal", "net1", "net1", true},
        Case{"literal longer", "net1", "net10", false},
        Case{"literal shorter", "net10", "net1", false},
        Case{"case matters", "Net1", "net1", false},
        Case{"star prefix", "net*", "net1", true},
        Case{"star empty", "net*", "net", true},
        Case{"star mismatch", "net*", "relu", false},
        Case{"star alone", "*", "anything", true},
        Case{"star of nothing", "*", "", true},
        Case{"two stars", "**", "net1", true},
        Case{"star both sides", "*et*", "net1", true},
        Case{"star middle", "n*1", "net1", true},
        Case{"star backtracks", "*ab", "aab", true},
        Case{"star backtracks twice", "*a*b", "xaxxb", true},
        Case{"star must end", "a*b", "abc", false},
        Case{"many stars", "*a*a*a*", "aa", false},
        Case{"question", "net?", "net1", true},
        Case{"question two", "net?", "net12", false},
        Case{"question none", "net?", "net", false},
        Case{"question unicode", "n?t", "nét", true},
        Case{"set", "net[12]", "net2", true},
        Case{"set mismatch", "net[12]", "net3", false},
        Case{"range", "net[1-2]", "net2", true},
        Case{"range outside", "net[1-2]", "net3", false},
        Case{"negated", "net[!1]", "net2", true},
        Case{"negated mismatch", "net[!1]", "net1", false},
        Case{"caret is no negation", "net[^1]", "net^", true},
        Case{"caret does not negate", "net[^1]", "net2", false},
        Case{"unclosed", "net[1", "net[1", true},
        Case{"unclosed does not match", "net[1", "net1", false},
        Case{"empty set is literal", "[]", "[]", true},
        Case{"empty negated set is literal", "[!]", "[!]", true},
        Case{"bracket first", "[]]", "]", true},
        Case{"bracket first negated", "[!]]", "a", true},
        Case{"bracket first negated mismatch", "[!]]", "]", false},
        Case{"bracket and more", "[]a]", "a", true},
        Case{"hyphen first", "[-a]", "-", true},
        Case{"hyphen last", "[a-]", "-", true},
        Case{"hyphen last other", "[a-]", "a", true},
        Case{"hyphen last between", "[a-]", "b", false},
        Case{"hyphen after not", "[!-a]", "-", false},
        Case{"hyphen after not other", "[!-a]", "b", true},
        Case{"range then hyphen", "[a-c-e]", "-", true},
        Case{"range then hyphen end", "[a-c-e]", "e", true},
        Case{"range then hyphen middle", "[a-c-e]", "d", false},
        Case{"two ranges", "[a-cx-z]", "y", true},
        Case{"two ranges between", "[a-cx-z]", "m", false},
        Case{"backwards range", "[c-a]", "b", false},
        Case{"backwards range end", "[c-a]", "c", false},
        Case{"backwards range and more", "[c-ax]", "x", true},
        Case{"negated backwards range", "[!c-a]", "c", true},
        Case{"range to bracket", "[a-]]", "a]", true},
        Case{"double hyphen", "[--0]", ".", true},
        Case{"set of star", "[*]", "*", true},
        Case{"set of star only", "[*]", "x", false},
        Case{"set of question", "[?]", "?", true},
        Case{"ampersands", "[a&&b]", "&", true},
        Case{"tilde", "[~~]", "~", true}, Case{"bar", "[||]", "|", true},
        Case{"backslash", "[\\]", "\\", true},
        Case{"backslash literal", "\\d", "\\d", true},
        Case{"backslash escapes nothing", "\\*", "*", false},
        Case{"dot is literal", "a.b", "axb", false},
        Case{"plus is literal", "a+", "aa", false},
        Case{"parentheses", "(a)", "(a)", true},
        Case{"newline", "a*b", "a\nb", true},
        Case{"digits", "[0-9][0-9]", "42", true},
        Case{"unicode range", "[à-ÿ]", "é", true},
        Case{"unicode set", "[éx]", "é", true},
        Case{"star unicode", "*é", "café", true},
        Case{"empty pattern", "", "net1", false},
        Case{"empty both", "", "", true},
        Case{"wq wk wv", "w[qkv]", "wk", true},
        Case{"wo is not", "w[qkv]", "wo", false},
        Case{"layer numbers", "[0-9]*", "10", true},
        Case{"not digits", "[!0-9]*", "norm", true},
        Case{"not digits on digit", "[!0-9]*", "0", false},
        Case{"adjacent sets", "[ab][!ab]", "ac", true},
        Case{"set then star", "[ab]*", "b123", true},
        Case{"odd negation after empty range", "[b-a!x]", "y", true},
        Case{"odd negation of range", "[b-a!-z]", "q", true}),
    CaseName<Case>);

// A pattern of many stars is not tried in all ways.
TEST(GlobMatch, TakesNoLongWithManyStars) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(GlobMatch(pattern + "b", std::string(2000, 'a')));
}

TEST(GlobMatch, TakesBytesThatAreNoUtf8) {
  EXPECT_TRUE(GlobMatch("a?", "a\xff"));
  EXPECT_TRUE(GlobMatch("\xc3", "\xc3"));
}

}  // namespace
}  // namespace shardplane
