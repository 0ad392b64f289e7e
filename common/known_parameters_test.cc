// Of CompleteParameters: what attributes say about parameters.
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/graph_module.h"
#include "common/known_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Attributes = absl::btree_map<std::string, Argument>;

const Attributes kLinear = {{"in_features", {int64_t{4}}},
                            {"out_features", {int64_t{8}}}};

ModuleNode Module(const std::string& fqn, const std::string& type,
                  Attributes attributes = {}) {
  return {.fqn = fqn, .type = type, .attributes = std::move(attributes)};
}

Attributes With(Attributes attributes, const std::string& name,
                Argument value) {
  attributes[name] = std::move(value);
  return attributes;
}

ListedParameter Listed(const std::string& fqn, Shape shape) {
  return {{.fqn = fqn, .type = {DType::kFloat32, std::move(shape)}}};
}
ListedParameter WithoutType(const std::string& fqn,
                            const std::string& alias_of = "") {
  return {{.fqn = fqn, .alias_of = alias_of}, /*has_type=*/false};
}

// "0: m.weight f32[8, 4]" for the first of the list, "m.bias f32[8]" for one
// that is implied.
std::vector<std::string> Texts(const std::vector<CompletedParameter>& all) {
  std::vector<std::string> texts;
  for (const auto& [parameter, listed] : all) {
    texts.push_back(absl::StrCat(listed < 0 ? "" : absl::StrCat(listed, ": "),
                                 parameter.fqn, " ", ToString(parameter.type),
                                 parameter.requires_grad ? "" : " frozen"));
  }
  return texts;
}

struct Case {
  std::string name;
  std::string type;
  Attributes attributes;
  std::vector<std::string> expected;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class ImpliedTest : public ::testing::TestWithParam<Case> {};

TEST_P(ImpliedTest, AreTorchs) {
  const auto completed = CompleteParameters(
      {Module("", "Root"), Module("m", GetParam().type, GetParam().attributes)},
      {});

  ASSERT_THAT(completed, IsOk());
  EXPECT_EQ(Texts(*completed), GetParam().expected);
}

const Attributes kEmbedding = {{"num_embeddings", {int64_t{32}}},
                               {"embedding_dim", {int64_t{8}}}};
const Attributes kNorm = {
    {"normalized_shape", {ArgumentList{{int64_t{3}}, {int64_t{5}}}}}};

INSTANTIATE_TEST_SUITE_P(
    All, ImpliedTest,
    ::testing::Values(Case{"linear",
                           "torch.nn.Linear",
                           kLinear,
                           {"m.weight f32[8, 4]", "m.bias f32[8]"}},
                      Case{"linear without bias",
                           "Linear",
                           With(kLinear, "bias", {false}),
                           {"m.weight f32[8, 4]"}},
                      Case{"linear of another dtype",
                           "Linear",
                           With(kLinear, "dtype", {DType::kFloat64}),
                           {"m.weight f64[8, 4]", "m.bias f64[8]"}},
                      Case{"embedding",
                           "torch.nn.modules.sparse.Embedding",
                           kEmbedding,
                           {"m.weight f32[32, 8]"}},
                      Case{"layer norm",
                           "LayerNorm",
                           kNorm,
                           {"m.weight f32[3, 5]", "m.bias f32[3, 5]"}},
                      Case{"layer norm of one dim",
                           "LayerNorm",
                           {{"normalized_shape", {int64_t{16}}}},
                           {"m.weight f32[16]", "m.bias f32[16]"}},
                      Case{"layer norm without bias",
                           "LayerNorm",
                           With(kNorm, "bias", {false}),
                           {"m.weight f32[3, 5]"}},
                      Case{"layer norm without parameters",
                           "LayerNorm",
                           With(kNorm, "elementwise_affine", {false}),
                           {}},
                      Case{
                          "rms norm", "RMSNorm", kNorm, {"m.weight f32[3, 5]"}},
                      Case{"rms norm without parameters",
                           "RMSNorm",
                           With(kNorm, "elementwise_affine", {false}),
                           {}},
                      Case{"linear without sizes", "Linear", {}, {}},
                      Case{"activation", "GELU", {}, {}},
                      Case{"unknown type", "my.Linear", kLinear, {}}),
    CaseName<Case>);

TEST(CompleteParameters, ThoseOfAModuleWithAGraphAreListedOrNot) {
  ModuleNode module = Module("", "Linear", kLinear);
  module.graph = Graph{};

  const auto completed = CompleteParameters({module}, {});

  ASSERT_THAT(completed, IsOk());
  EXPECT_THAT(*completed, IsEmpty());
}

TEST(CompleteParameters, AModuleThatListsSomeHasNoOthers) {
  const auto completed = CompleteParameters({Module("", "Linear", kLinear)},
                                            {Listed("weight", {8, 4})});

  ASSERT_THAT(completed, IsOk());
  EXPECT_THAT(Texts(*completed), ElementsAre("0: weight f32[8, 4]"));
}

TEST(CompleteParameters, ComeInOrderOfTheModules) {
  const auto completed = CompleteParameters(
      {Module("", "Sequential"), Module("a", "Linear", kLinear),
       Module("b", "my.Block"), Module("c", "Linear", kLinear)},
      {Listed("c.weight", {8, 4}), Listed("b.scale", {2}),
       Listed("temperature", {})});

  ASSERT_THAT(completed, IsOk());
  EXPECT_THAT(
      Texts(*completed),
      ElementsAre("2: temperature f32[]", "a.weight f32[8, 4]", "a.bias f32[8]",
                  "1: b.scale f32[2]", "0: c.weight f32[8, 4]"));
}

TEST(CompleteParameters, StayInTheirOrderIfAllAreListed) {
  const auto completed = CompleteParameters(
      {Module("", "Root"), Module("a", "my.A"), Module("b", "my.B")},
      {Listed("b.w", {2}), Listed("a.w", {1})});

  ASSERT_THAT(completed, IsOk());
  EXPECT_THAT(Texts(*completed), ElementsAre("0: b.w f32[2]", "1: a.w f32[1]"));
}

TEST(CompleteParameters, ListedOnesMayLeaveTheirTypeToTheAttributes) {
  ListedParameter frozen = WithoutType("weight");
  frozen.parameter.requires_grad = false;

  const auto completed =
      CompleteParameters({Module("", "Linear", kLinear)}, {frozen});

  ASSERT_THAT(completed, IsOk());
  EXPECT_THAT(Texts(*completed), ElementsAre("0: weight f32[8, 4] frozen"));
}

// The alias comes first, and what it names is implied, or listed later.
TEST(CompleteParameters, AliasesMayLeaveTheirTypeToTheFirstName) {
  const Attributes tied = {{"in_features", {int64_t{8}}},
                           {"out_features", {int64_t{32}}}};
  const std::vector<ModuleNode> modules = {
      Module("", "Root"), Module("head", "Linear", tied),
      Module("embed", "Embedding",
             With(kEmbedding, "dtype", {DType::kFloat64}))};

  const auto implied =
      CompleteParameters(modules, {WithoutType("head.weight", "embed.weight")});
  const auto listed =
      CompleteParameters(modules, {WithoutType("head.weight", "embed.weight"),
                                   WithoutType("embed.weight")});

  ASSERT_THAT(implied, IsOk());
  ASSERT_THAT(listed, IsOk());
  EXPECT_THAT(Texts(*implied), ElementsAre("0: head.weight f64[32, 8]",
                                           "embed.weight f64[32, 8]"));
  EXPECT_THAT(Texts(*listed), ElementsAre("0: head.weight f64[32, 8]",
                                          "1: embed.weight f64[32, 8]"));
}

struct BadCase {
  std::string name;
  ModuleNode module;
  std::vector<ListedParameter> listed;
  std::string fqn;
  std::string message;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class RefusedTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(RefusedTest, NamesTheCulprit) {
  EXPECT_THAT(CompleteParameters({Module("", "Root"), GetParam().module},
                                 GetParam().listed),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr(GetParam().message)),
                    HasReason("INVALID_MODULE"),
                    HasMetadata("fqn", Eq(GetParam().fqn))));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedTest,
    ::testing::Values(
        BadCase{"one of two sizes",
                Module("m", "Linear", {{"in_features", {int64_t{4}}}}),
                {},
                "m",
                "module \"m\" of type Linear needs its attributes "
                "out_features, in_features together; got: no out_features"},
        BadCase{
            "a negative size",
            Module("m", "Linear", With(kLinear, "in_features", {int64_t{-4}})),
            {},
            "m",
            "attribute \"in_features\" must not be negative; got: -4"},
        BadCase{"an unknown attribute",
                Module("m", "Linear", With(kLinear, "biased", {true})),
                {},
                "m",
                "its attributes are in_features, out_features, bias, dtype, "
                "inplace; got: biased=true"},
        BadCase{"an attribute of another kind",
                Module("m", "Linear", With(kLinear, "bias", {int64_t{1}})),
                {},
                "m",
                "attribute \"bias\" must be a bool; got: 1"},
        BadCase{"another shape",
                Module("m", "Linear", kLinear),
                {Listed("m.weight", {4, 8})},
                "m.weight",
                "parameter \"m.weight\" must have the shape that its module's "
                "attributes say, [8, 4]; got: [4, 8]"},
        BadCase{"a bias that is to be there",
                Module("m", "Linear", With(kLinear, "bias", {true})),
                {Listed("m.weight", {8, 4})},
                "m.bias",
                "got: bias=true and the parameters weight"},
        BadCase{"a bias that is not to be there",
                Module("m", "Linear", With(kLinear, "bias", {false})),
                {Listed("m.weight", {8, 4}), Listed("m.bias", {8})},
                "m.bias",
                "got: bias=false and the parameters weight, bias"},
        BadCase{"no type",
                Module("m", "my.Block"),
                {WithoutType("m.scale")},
                "m.scale",
                "parameter \"m.scale\" needs a type: neither its module's "
                "attributes nor an alias say one; got: none"},
        BadCase{"an alias of nothing",
                Module("m", "my.Block"),
                {WithoutType("m.scale", "m.other")},
                "m.scale",
                "needs a type"}),
    CaseName<BadCase>);

}  // namespace
}  // namespace shardplane
