#include "common/optimizer.h"

#include <limits>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct BadCase {
  std::string name;
  SgdOptions options;
  std::string field;
  std::string got;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class BadSgdTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadSgdTest, NamesTheField) {
  EXPECT_THAT(Validate(GetParam().options),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("got: " + GetParam().got)),
                    HasReason("INVALID_OPTIMIZER"),
                    HasMetadata("field", Eq(GetParam().field))));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSgdTest,
    ::testing::Values(
        BadCase{"negative lr", {.lr = -0.5}, "lr", "-0.5"},
        BadCase{"infinite lr", {.lr = kInfinity}, "lr", "inf"},
        BadCase{"lr that is no number", {.lr = kNan}, "lr", "nan"},
        BadCase{"negative momentum", {.momentum = -1}, "momentum", "-1"},
        BadCase{"negative weight decay",
                {.weight_decay = -1},
                "weight_decay",
                "-1"},
        BadCase{
            "infinite dampening", {.dampening = kInfinity}, "dampening", "inf"},
        BadCase{"nesterov without momentum",
                {.nesterov = true},
                "nesterov",
                "momentum 0, dampening 0"},
        BadCase{"nesterov with dampening",
                {.momentum = 0.9, .dampening = 0.5, .nesterov = true},
                "nesterov",
                "momentum 0.9, dampening 0.5"}),
    CaseName<BadCase>);

struct GoodCase {
  std::string name;
  SgdOptions options;
};
void PrintTo(const GoodCase& c, std::ostream* os) { *os << c.name; }

class GoodSgdTest : public ::testing::TestWithParam<GoodCase> {};

TEST_P(GoodSgdTest, IsTaken) {
  EXPECT_THAT(Validate(GetParam().options), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    All, GoodSgdTest,
    ::testing::Values(GoodCase{"the defaults", {}},
                      GoodCase{"no learning", {.lr = 0}},
                      GoodCase{"nesterov", {.momentum = 0.9, .nesterov = true}},
                      GoodCase{"negative dampening", {.dampening = -1}},
                      GoodCase{"all",
                               {.lr = 0.25,
                                .momentum = 0.9,
                                .dampening = 0.1,
                                .weight_decay = 0.01,
                                .maximize = true}}),
    CaseName<GoodCase>);

}  // namespace
}  // namespace shardplane
