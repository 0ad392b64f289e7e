#include "common/graph_module.h"

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/example_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(GraphModule, FindsModulesAndParameters) {
  const GraphModule module = MlpStacked(2);

  EXPECT_EQ(module.FindModule("layers.1.net1")->type,
            "torch.nn.modules.linear.Linear");
  EXPECT_EQ(module.FindModule("layers.2"), nullptr);
  EXPECT_EQ(module.ModuleIndex(""), 0);
  EXPECT_EQ(module.ModuleIndex("net1"), -1);
  EXPECT_EQ(module.FindParameter("layers.0.net1.bias")->type.shape, Shape{16});
  EXPECT_EQ(module.FindParameter("layers.0.net1"), nullptr);
}

TEST(GraphModule, ListsChildrenInOrderOfRegistration) {
  const GraphModule module = MlpModule();

  EXPECT_THAT(module.Children(0),
              ElementsAre(Pair("net1", 1), Pair("relu", 2), Pair("net2", 3)));
  EXPECT_THAT(module.Children(1), ElementsAre());
}

TEST(GraphModule, ListsParametersOfTheModuleAlone) {
  const GraphModule module = MlpModule();

  EXPECT_THAT(module.ParametersOf(0), ElementsAre());
  EXPECT_THAT(module.ParametersOf(3), ElementsAre(2, 3));
}

TEST(GraphModule, KnowsTheFirstNameOfATiedParameter) {
  const GraphModule module = Transformer(1);
  const Parameter& alias = *module.FindParameter("output.weight");

  EXPECT_EQ(module.Canonical(alias).fqn, "tok_embeddings.weight");
  EXPECT_EQ(module.Canonical(module.parameters()[0]).fqn,
            module.parameters()[0].fqn);
}

// A module with a linear and a graph that calls it, for a test to spoil.
struct Parts {
  std::vector<ModuleNode> modules;
  std::vector<Parameter> parameters;

  Graph& graph() { return *modules[0].graph; }
};

Parts GoodParts() {
  Parts parts;
  ModuleNode root;
  root.graph =
      Graph{{{.name = "x", .op = NodeOp::kPlaceholder},
             {.name = "scale", .op = NodeOp::kGetAttr, .target = "scale"},
             {.name = "y",
              .op = NodeOp::kCallModule,
              .target = "linear",
              .args = {{NodeRef{"x"}}}},
             {.name = "z",
              .op = NodeOp::kCallFunction,
              .target = "aten.mul.Tensor",
              .args = {{NodeRef{"y"}}, {NodeRef{"scale"}}}},
             {.name = "output",
              .op = NodeOp::kOutput,
              .args = {{ArgumentList{{NodeRef{"z"}}, {}}}}}}};
  ModuleNode linear;
  linear.fqn = "linear";
  linear.type = "torch.nn.Linear";
  parts.modules = {root, linear};
  parts.parameters.resize(3);
  parts.parameters[0].fqn = "scale";
  parts.parameters[1].fqn = "linear.weight";
  parts.parameters[1].type.shape = {8, 4};
  parts.parameters[2].fqn = "linear.bias";
  parts.parameters[2].type.shape = {8};
  return parts;
}

TEST(Create, TakesAGoodModule) {
  Parts parts = GoodParts();

  EXPECT_THAT(GraphModule::Create(parts.modules, parts.parameters), IsOk());
}

struct BadCase {
  std::string name;
  std::function<void(Parts&)> spoil;
  std::string message;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class BadModuleTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadModuleTest, IsRefused) {
  Parts parts = GoodParts();
  GetParam().spoil(parts);

  EXPECT_THAT(GraphModule::Create(parts.modules, parts.parameters),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Trees, BadModuleTest,
    ::testing::Values(
        BadCase{"no modules", [](Parts& p) { p.modules.clear(); },
                "needs a root"},
        BadCase{"a root with a name",
                [](Parts& p) { p.modules[0].fqn = "model"; },
                "the first module must be the root, whose FQN is \"\"; got: "
                "\"model\""},
        BadCase{"a parent that is missing",
                [](Parts& p) { p.modules[1].fqn = "net.linear"; },
                "the parent \"net\" of a module must come before it; got: "
                "\"net.linear\""},
        BadCase{"a parent that comes later",
                [](Parts& p) {
                  p.modules[1].fqn = "net.linear";
                  p.modules.push_back({.fqn = "net"});
                },
                "the parent \"net\" of a module must come before it"},
        BadCase{"a module twice",
                [](Parts& p) { p.modules.push_back(p.modules[1]); },
                "must occur once; got: \"linear\""},
        BadCase{"an empty name",
                [](Parts& p) { p.modules.push_back({.fqn = "linear."}); },
                "got: \"linear.\""},
        BadCase{"a parameter without module",
                [](Parts& p) { p.parameters[0].fqn = "net.scale"; },
                "the module \"net\" of a parameter must be in the tree; got: "
                "\"net.scale\""},
        BadCase{"a parameter twice",
                [](Parts& p) { p.parameters[2].fqn = "linear.weight"; },
                "must occur once; got: \"linear.weight\""},
        BadCase{"a parameter named as a module",
                [](Parts& p) { p.parameters[0].fqn = "linear"; },
                "must occur once; got: \"linear\""},
        BadCase{"a negative extent",
                [](Parts& p) {
                  p.parameters[1].type.shape = {8, -4};
                },
                "not f32[8, -4]; got: \"linear.weight\""},
        BadCase{"a gradient of integers",
                [](Parts& p) { p.parameters[0].type.dtype = DType::kInt64; },
                "can require a gradient, not i64[]; got: \"scale\""},
        BadCase{"an alias of nothing",
                [](Parts& p) { p.parameters[2].alias_of = "linear.scale"; },
                "\"linear.bias\" must be an alias of a parameter that is no "
                "alias itself; got: \"linear.scale\""},
        BadCase{"an alias of itself",
                [](Parts& p) { p.parameters[2].alias_of = "linear.bias"; },
                "no alias itself"},
        BadCase{"an alias of another type",
                [](Parts& p) { p.parameters[2].alias_of = "linear.weight"; },
                "\"linear.bias\" is f32[8] and its first name f32[8, 4]"}),
    CaseName<BadCase>);

INSTANTIATE_TEST_SUITE_P(
    Graphs, BadModuleTest,
    ::testing::Values(
        BadCase{"no nodes", [](Parts& p) { p.graph().nodes.clear(); },
                "must end with an output node; got: no nodes"},
        BadCase{"no output", [](Parts& p) { p.graph().nodes.pop_back(); },
                "must end with an output node; got: z"},
        BadCase{
            "two outputs",
            [](Parts& p) { p.graph().nodes.push_back(p.graph().nodes.back()); },
            "must have one output node; got: output"},
        BadCase{"an output of nothing",
                [](Parts& p) { p.graph().nodes.back().args.clear(); },
                "an output node of one argument; got: 0 arguments"},
        BadCase{"a name twice", [](Parts& p) { p.graph().nodes[3].name = "x"; },
                "must have a name once; got: x"},
        BadCase{"no name", [](Parts& p) { p.graph().nodes[3].name = ""; },
                "must name its nodes"},
        BadCase{"a use before the making",
                [](Parts& p) { p.graph().nodes[2].args = {{NodeRef{"z"}}}; },
                "uses what no node before it makes at node y; got: %z"},
        BadCase{"an unknown reference in a list",
                [](Parts& p) {
                  p.graph().nodes[4].args = {
                      {ArgumentList{{NodeRef{"nothing"}}}}};
                },
                "at node output; got: %nothing"},
        BadCase{"an unknown reference in a kwarg",
                [](Parts& p) {
                  p.graph().nodes[3].kwargs["other"] = {NodeRef{"nothing"}};
                },
                "at node z; got: %nothing"},
        BadCase{"an unknown module",
                [](Parts& p) { p.graph().nodes[2].target = "relu"; },
                "calls an unknown module at node y; got: \"relu\""},
        BadCase{"an unknown parameter",
                [](Parts& p) { p.graph().nodes[1].target = "bias"; },
                "names an unknown parameter or buffer at node scale; got: "
                "\"bias\""},
        BadCase{"a call of no function",
                [](Parts& p) { p.graph().nodes[3].target = ""; },
                "must name the function of node z"},
        BadCase{"a call of itself",
                [](Parts& p) { p.graph().nodes[2].target = ""; },
                "a module must not call itself, directly or through others; "
                "got: \"\""}),
    CaseName<BadCase>);

TEST(Create, RefusesModulesThatCallEachOtherInACircle) {
  Parts parts = GoodParts();
  parts.modules[1].graph =
      Graph{{{.name = "y", .op = NodeOp::kCallModule, .target = ""},
             {.name = "output", .op = NodeOp::kOutput, .args = {{}}}}};

  EXPECT_THAT(GraphModule::Create(parts.modules, parts.parameters),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("must not call itself")),
                    HasReason("INVALID_GRAPH")));
}

TEST(Argument, TextForm) {
  EXPECT_EQ(ToString(Argument{}), "None");
  EXPECT_EQ(ToString(Argument{NodeRef{"x"}}), "%x");
  EXPECT_EQ(ToString(Argument{0.5}), "0.5");
  EXPECT_EQ(ToString(Argument{true}), "true");
  EXPECT_EQ(ToString(Argument{std::string("none")}), "\"none\"");
  EXPECT_EQ(ToString(Argument{DType::kFloat32}), "f32");
  EXPECT_EQ(ToString(Argument{ArgumentList{{int64_t{1}}, {NodeRef{"y"}}}}),
            "[1, %y]");
}

struct IsACase {
  std::string name;
  std::string type;
  std::vector<std::string> bases;
  bool is_linear;
};
void PrintTo(const IsACase& c, std::ostream* os) { *os << c.name; }

class IsATest : public ::testing::TestWithParam<IsACase> {};

TEST_P(IsATest, TakesTorchsClassAndItsSubclasses) {
  ModuleNode module;
  module.type = GetParam().type;
  module.bases = GetParam().bases;

  EXPECT_EQ(IsA(module, "Linear"), GetParam().is_linear);
}

INSTANTIATE_TEST_SUITE_P(
    All, IsATest,
    ::testing::Values(
        IsACase{"its module", "torch.nn.modules.linear.Linear", {}, true},
        IsACase{"short", "torch.nn.Linear", {}, true},
        IsACase{"bare", "Linear", {}, true},
        IsACase{"another", "torch.nn.ReLU", {}, false},
        IsACase{"a longer name", "torch.nn.LazyLinear", {}, false},
        IsACase{"a namesake", "my.package.Linear", {}, false},
        IsACase{"a subclass",
                "my.LoraLinear",
                {"my.Base", "torch.nn.modules.linear.Linear"},
                true},
        IsACase{"a subclass of a namesake", "my.Other", {"my.Linear"}, false},
        IsACase{"no type", "", {}, false}),
    CaseName<IsACase>);

}  // namespace
}  // namespace shardplane
