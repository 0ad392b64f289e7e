#include "common/optimizer.h"

#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct BadCase {
  std::string name;
  OptimizerOptions options;
  std::string field;
  std::string got;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

BadCase Sgd(std::string name, SgdOptions sgd, const std::string& field,
            std::string got) {
  return {std::move(name), {sgd}, "sgd." + field, std::move(got)};
}
BadCase Adam(std::string name, AdamOptions adam, const std::string& field,
             std::string got) {
  return {std::move(name), {adam}, "adam." + field, std::move(got)};
}
BadCase Group(std::string name, std::vector<ParameterGroup> groups,
              std::string field, std::string got) {
  return {std::move(name),
          {AdamOptions(), std::move(groups)},
          std::move(field),
          std::move(got)};
}

class BadOptimizerTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadOptimizerTest, NamesTheField) {
  EXPECT_THAT(Validate(GetParam().options),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("got: " + GetParam().got)),
                    HasReason("INVALID_OPTIMIZER"),
                    HasMetadata("field", Eq(GetParam().field))));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadOptimizerTest,
    ::testing::Values(
        Sgd("negative lr", {.lr = -0.5}, "lr", "-0.5"),
        Sgd("infinite lr", {.lr = kInfinity}, "lr", "inf"),
        Sgd("lr that is no number", {.lr = kNan}, "lr", "nan"),
        Sgd("negative momentum", {.momentum = -1}, "momentum", "-1"),
        Sgd("negative weight decay", {.weight_decay = -1}, "weight_decay",
            "-1"),
        Sgd("infinite dampening", {.dampening = kInfinity}, "dampening", "inf"),
        Sgd("nesterov without momentum", {.nesterov = true}, "nesterov",
            "momentum 0, dampening 0"),
        Sgd("nesterov with dampening",
            {.momentum = 0.9, .dampening = 0.5, .nesterov = true}, "nesterov",
            "momentum 0.9, dampening 0.5"),
        Adam("negative lr of Adam", {.lr = -1}, "lr", "-1"),
        Adam("beta1 of one", {.beta1 = 1}, "beta1", "1"),
        Adam("negative beta2", {.beta2 = -0.5}, "beta2", "-0.5"),
        Adam("beta2 that is no number", {.beta2 = kNan}, "beta2", "nan"),
        Adam("negative eps", {.eps = -1}, "eps", "-1"),
        Adam("negative weight decay of Adam", {.weight_decay = -1},
             "weight_decay", "-1"),
        BadCase{"AdamW by its name",
                {AdamOptions{.kind = AdamKind::kAdamW, .lr = -1}},
                "adamw.lr",
                "-1"},
        Group("no pattern", {{{}, AdamOptions()}}, "groups[0].patterns",
              "none"),
        Group("another kind",
              {{{"*"}, AdamOptions()},
               {{"*"}, AdamOptions{.kind = AdamKind::kAdamW}}},
              "groups[1]", "AdamW"),
        Group("another optimizer", {{{"*"}, SgdOptions()}}, "groups[0]", "SGD"),
        Group("a value of a group",
              {{{"*"}, AdamOptions()}, {{"*"}, AdamOptions{.beta1 = 2}}},
              "groups[1].adam.beta1", "2")),
    CaseName<BadCase>);

struct GoodCase {
  std::string name;
  OptimizerOptions options;
};
void PrintTo(const GoodCase& c, std::ostream* os) { *os << c.name; }

class GoodOptimizerTest : public ::testing::TestWithParam<GoodCase> {};

TEST_P(GoodOptimizerTest, IsTaken) {
  EXPECT_THAT(Validate(GetParam().options), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    All, GoodOptimizerTest,
    ::testing::Values(
        GoodCase{"the defaults", {}},
        GoodCase{"no learning", {SgdOptions{.lr = 0}}},
        GoodCase{"nesterov", {SgdOptions{.momentum = 0.9, .nesterov = true}}},
        GoodCase{"negative dampening", {SgdOptions{.dampening = -1}}},
        GoodCase{"all of SGD",
                 {SgdOptions{.lr = 0.25,
                             .momentum = 0.9,
                             .dampening = 0.1,
                             .weight_decay = 0.01,
                             .maximize = true}}},
        GoodCase{"Adam without memory",
                 {AdamOptions{.beta1 = 0, .beta2 = 0, .eps = 0}}},
        GoodCase{"all of AdamW",
                 {AdamOptions{.kind = AdamKind::kAdamW,
                              .lr = 0.25,
                              .weight_decay = 0.01,
                              .amsgrad = true,
                              .maximize = true},
                  {{{"*.bias"}, AdamOptions{.kind = AdamKind::kAdamW}}}}}),
    CaseName<GoodCase>);

TEST(KindNameTest, IsTorchs) {
  EXPECT_EQ(KindName(SgdOptions()), "SGD");
  EXPECT_EQ(KindName(AdamOptions()), "Adam");
  EXPECT_EQ(KindName(AdamOptions{.kind = AdamKind::kAdamW}), "AdamW");
}

const std::vector<std::string>& Names() {
  static const auto& names = *new std::vector<std::string>{
      "layers.0.norm.weight", "layers.0.up.bias", "layers.0.up.weight",
      "layers.1.up.weight", "scale"};
  return names;
}

// Groups of these patterns over Names().
absl::StatusOr<std::vector<int>> Assign(
    const std::vector<std::vector<std::string>>& groups) {
  OptimizerOptions options;
  for (const auto& patterns : groups) {
    options.groups.push_back({patterns, SgdOptions()});
  }
  return AssignGroups(options, Names());
}

TEST(AssignGroupsTest, FirstGroupThatMatchesCounts) {
  EXPECT_THAT(Assign({}), IsOkAndHolds(ElementsAre(-1, -1, -1, -1, -1)));
  EXPECT_THAT(Assign({{"layers.*.*.bias", "*.*.norm.*"}}),
              IsOkAndHolds(ElementsAre(0, 0, -1, -1, -1)));
  EXPECT_THAT(Assign({{"*.*.*.bias"}, {"*.0.*.*"}, {"scale"}}),
              IsOkAndHolds(ElementsAre(1, 0, 1, -1, 2)));
  EXPECT_THAT(Assign({{"layers.[!0].u?.w*"}}),
              IsOkAndHolds(ElementsAre(-1, -1, -1, 0, -1)));
  EXPECT_THAT(Assign({{"scale", "layers.0.up.bias"}, {"*.*.*.*", "scale"}}),
              IsOkAndHolds(ElementsAre(1, 0, 1, 1, 0)));
}

TEST(AssignGroupsTest, StarIsOneToken) {
  EXPECT_THAT(Assign({{"*"}}), IsOkAndHolds(ElementsAre(-1, -1, -1, -1, 0)));
}

TEST(ValuesOfTest, AreTheGroupsOrTheOptimizers) {
  const OptimizerOptions options{SgdOptions{.lr = 1},
                                 {{{"a"}, SgdOptions{.lr = 2}}}};
  EXPECT_EQ(ValuesOf(options, -1), Hyperparameters(SgdOptions{.lr = 1}));
  EXPECT_EQ(ValuesOf(options, 0), Hyperparameters(SgdOptions{.lr = 2}));
}

struct UnmatchedCase {
  std::string name;
  std::string pattern;
  std::string suggestion;  // "": none
};
void PrintTo(const UnmatchedCase& c, std::ostream* os) { *os << c.pattern; }

class UnmatchedTest : public ::testing::TestWithParam<UnmatchedCase> {};

TEST_P(UnmatchedTest, SaysWhatMayHaveBeenMeant) {
  const std::string& suggestion = GetParam().suggestion;
  const std::string hint = suggestion.empty()
                               ? "a parameter; got: "
                               : "(did you mean '" + suggestion + "'?); got: ";
  EXPECT_THAT(Assign({{"scale"}, {"scale", GetParam().pattern}}),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr(hint + "'" + GetParam().pattern + "'")),
                    HasReason("PATTERN_WITHOUT_MATCH"),
                    HasMetadata("field", Eq("groups[1].patterns[1]")),
                    HasMetadata("pattern", Eq(GetParam().pattern))));
}

INSTANTIATE_TEST_SUITE_P(
    All, UnmatchedTest,
    ::testing::Values(
        UnmatchedCase{"a module's name", "layers.1.up", "layers.1.up.*"},
        UnmatchedCase{"a list's name", "layers", "layers.*.*.*"},
        UnmatchedCase{"the last token alone", "bias", "*.*.*.bias"},
        UnmatchedCase{"one token wrong", "layers.*.nrm.*", "layers.*.norm.*"},
        UnmatchedCase{"the last token wrong", "layers.0.up.weihgt",
                      "layers.0.up.weight"},
        UnmatchedCase{"two tokens wrong", "layer.*.nrm.*", ""},
        UnmatchedCase{"no such index", "layers.7.up.weight", ""},
        UnmatchedCase{"too deep", "scale.*", ""},
        UnmatchedCase{"nothing like it", "embedding", ""},
        UnmatchedCase{"empty", "", ""}),
    CaseName<UnmatchedCase>);

}  // namespace
}  // namespace shardplane
