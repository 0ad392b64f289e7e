// Of GraphOf: the graphs that the core writes for known types.
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/graph_module.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Eq;
using ::testing::HasSubstr;

// One node a line: "call_1 = aten.linear.default(%input, %weight)".
std::string GraphText(const Graph& graph) {
  std::string text;
  for (const Node& node : graph.nodes) {
    if (node.op == NodeOp::kPlaceholder) continue;
    std::vector<std::string> args;
    for (const Argument& argument : node.args) {
      args.push_back(ToString(argument));
    }
    for (const auto& [name, argument] : node.kwargs) {
      args.push_back(absl::StrCat(name, "=", ToString(argument)));
    }
    absl::StrAppend(&text, node.name, " = ",
                    node.op == NodeOp::kGetAttr      ? "get_attr "
                    : node.op == NodeOp::kCallModule ? "call_module "
                                                     : "",
                    node.target);
    if (node.op != NodeOp::kGetAttr) {
      absl::StrAppend(&text, "(", absl::StrJoin(args, ", "), ")");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

struct Case {
  std::string name;
  std::string type;
  std::vector<std::string> parameters = {};
  absl::btree_map<std::string, Argument> attributes = {};
  bool training = true;
  std::string graph = "";
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

// The module "m" of a root; its parameters are f32[8, 4].
GraphModule ModuleOf(const Case& c) {
  ModuleNode root;
  ModuleNode module;
  module.fqn = "m";
  module.type = c.type;
  module.attributes = c.attributes;
  module.training = c.training;
  std::vector<Parameter> parameters;
  for (const std::string& name : c.parameters) {
    Parameter parameter;
    parameter.fqn = "m." + name;
    parameter.type.shape = {8, 4};
    parameters.push_back(std::move(parameter));
  }
  return GraphModule::Create({root, module}, parameters).value();
}

class GraphOfTest : public ::testing::TestWithParam<Case> {};

TEST_P(GraphOfTest, WritesTheGraph) {
  const auto graph = GraphOf(ModuleOf(GetParam()), 1);

  ASSERT_THAT(graph, IsOk());
  EXPECT_EQ(GraphText(*graph), GetParam().graph);
}

const Argument kShape = {ArgumentList{{int64_t{16}}}};

INSTANTIATE_TEST_SUITE_P(
    All, GraphOfTest,
    ::testing::Values(
        Case{.name = "linear with bias",
             .type = "torch.nn.Linear",
             .parameters = {"weight", "bias"},
             .graph = "weight = get_attr m.weight\n"
                      "bias = get_attr m.bias\n"
                      "call_1 = aten.linear.default(%input, %weight, %bias)\n"
                      "output = (%call_1)\n"},
        Case{.name = "linear without bias",
             .type = "torch.nn.modules.linear.Linear",
             .parameters = {"weight"},
             .graph = "weight = get_attr m.weight\n"
                      "call_1 = aten.linear.default(%input, %weight)\n"
                      "output = (%call_1)\n"},
        Case{.name = "embedding",
             .type = "torch.nn.Embedding",
             .parameters = {"weight"},
             .graph = "weight = get_attr m.weight\n"
                      "call_1 = aten.embedding.default(%weight, %input, -1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "embedding with padding from the end",
             .type = "torch.nn.Embedding",
             .parameters = {"weight"},
             .attributes = {{"padding_idx", {int64_t{-3}}}},
             .graph = "weight = get_attr m.weight\n"
                      "call_1 = aten.embedding.default(%weight, %input, 5)\n"
                      "output = (%call_1)\n"},
        Case{.name = "embedding with padding",
             .type = "torch.nn.Embedding",
             .parameters = {"weight"},
             .attributes = {{"padding_idx", {int64_t{3}}}},
             .graph = "weight = get_attr m.weight\n"
                      "call_1 = aten.embedding.default(%weight, %input, 3)\n"
                      "output = (%call_1)\n"},
        Case{.name = "layer norm",
             .type = "torch.nn.LayerNorm",
             .parameters = {"weight", "bias"},
             .attributes = {{"normalized_shape", kShape}, {"eps", {1e-6}}},
             .graph = "weight = get_attr m.weight\n"
                      "bias = get_attr m.bias\n"
                      "call_1 = aten.layer_norm.default(%input, [16], %weight, "
                      "%bias, 1e-06)\n"
                      "output = (%call_1)\n"},
        Case{.name = "layer norm without parameters",
             .type = "torch.nn.LayerNorm",
             .attributes = {{"normalized_shape", kShape}},
             .graph = "call_1 = aten.layer_norm.default(%input, [16], None, "
                      "None, 1e-05)\n"
                      "output = (%call_1)\n"},
        Case{.name = "rms norm",
             .type = "torch.nn.RMSNorm",
             .parameters = {"weight"},
             .attributes = {{"normalized_shape", kShape}},
             .graph = "weight = get_attr m.weight\n"
                      "call_1 = aten.rms_norm.default(%input, [16], %weight, "
                      "None)\n"
                      "output = (%call_1)\n"},
        Case{.name = "rms norm with eps",
             .type = "torch.nn.RMSNorm",
             .attributes = {{"normalized_shape", {int64_t{16}}},
                            {"eps", {int64_t{1}}},
                            {"elementwise_affine", {false}}},
             .graph = "call_1 = aten.rms_norm.default(%input, [16], None, 1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "relu",
             .type = "torch.nn.ReLU",
             .graph = "call_1 = aten.relu.default(%input)\n"
                      "output = (%call_1)\n"},
        Case{.name = "silu",
             .type = "torch.nn.SiLU",
             .graph = "call_1 = aten.silu.default(%input)\n"
                      "output = (%call_1)\n"},
        Case{.name = "tanh",
             .type = "torch.nn.Tanh",
             .graph = "call_1 = aten.tanh.default(%input)\n"
                      "output = (%call_1)\n"},
        Case{.name = "sigmoid",
             .type = "torch.nn.Sigmoid",
             .graph = "call_1 = aten.sigmoid.default(%input)\n"
                      "output = (%call_1)\n"},
        Case{.name = "leaky relu",
             .type = "torch.nn.LeakyReLU",
             .graph = "call_1 = aten.leaky_relu.default(%input, 0.01)\n"
                      "output = (%call_1)\n"},
        Case{.name = "leaky relu with a slope",
             .type = "torch.nn.LeakyReLU",
             .attributes = {{"negative_slope", {int64_t{1}}},
                            {"inplace", {true}}},
             .graph = "call_1 = aten.leaky_relu.default(%input, 1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "softplus",
             .type = "torch.nn.Softplus",
             .attributes = {{"beta", {2.0}}, {"threshold", {}}},
             .graph = "call_1 = aten.softplus.default(%input, 2, 20)\n"
                      "output = (%call_1)\n"},
        Case{.name = "hardtanh",
             .type = "torch.nn.Hardtanh",
             .attributes = {{"min_val", {-2.0}}},
             .graph = "call_1 = aten.hardtanh.default(%input, -2, 1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "elu",
             .type = "torch.nn.ELU",
             .graph = "call_1 = aten.elu.default(%input, 1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "gelu",
             .type = "torch.nn.GELU",
             .graph = "call_1 = aten.gelu.default(%input)\n"
                      "output = (%call_1)\n"},
        Case{.name = "gelu by tanh",
             .type = "torch.nn.GELU",
             .attributes = {{"approximate", {std::string("tanh")}}},
             .graph =
                 "call_1 = aten.gelu.default(%input, approximate=\"tanh\")\n"
                 "output = (%call_1)\n"},
        Case{.name = "softmax",
             .type = "torch.nn.Softmax",
             .attributes = {{"dim", {int64_t{-1}}}},
             .graph = "call_1 = aten.softmax.int(%input, -1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "log softmax",
             .type = "torch.nn.LogSoftmax",
             .attributes = {{"dim", {int64_t{1}}}},
             .graph = "call_1 = aten.log_softmax.int(%input, 1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "identity",
             .type = "torch.nn.Identity",
             .graph = "output = (%input)\n"},
        Case{.name = "dropout in eval mode",
             .type = "torch.nn.Dropout",
             .attributes = {{"p", {0.1}}},
             .training = false,
             .graph = "output = (%input)\n"},
        Case{.name = "dropout of nothing",
             .type = "torch.nn.Dropout",
             .attributes = {{"p", {0.0}}},
             .graph = "output = (%input)\n"},
        Case{.name = "dropout in train mode",
             .type = "torch.nn.Dropout",
             .attributes = {{"p", {0.1}}},
             .graph = "call_1 = aten.dropout.default(%input, 0.1, true)\n"
                      "output = (%call_1)\n"},
        Case{.name = "flatten",
             .type = "torch.nn.Flatten",
             .graph = "call_1 = aten.flatten.using_ints(%input, 1, -1)\n"
                      "output = (%call_1)\n"},
        Case{.name = "unflatten",
             .type = "torch.nn.Unflatten",
             .attributes = {{"dim", {int64_t{-1}}},
                            {"unflattened_size",
                             {ArgumentList{{int64_t{4}}, {int64_t{-1}}}}}},
             .graph = "call_1 = aten.unflatten.int(%input, -1, [4, -1])\n"
                      "output = (%call_1)\n"}),
    CaseName<Case>);

// Types whose forward is one op of their input, as the op is called without
// attributes.
class ActivationTest
    : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(ActivationTest, IsOneOp) {
  const auto& [type, op] = GetParam();
  Case c;
  c.type = absl::StrCat("torch.nn.modules.activation.", type);

  const auto graph = GraphOf(ModuleOf(c), 1);

  ASSERT_THAT(graph, IsOk());
  EXPECT_EQ(GraphText(*graph), absl::StrCat("call_1 = aten.", op,
                                            ".default(%input)\n"
                                            "output = (%call_1)\n"));
}

INSTANTIATE_TEST_SUITE_P(
    All, ActivationTest,
    ::testing::Values(std::pair("ReLU", "relu"), std::pair("ReLU6", "relu6"),
                      std::pair("SiLU", "silu"), std::pair("Mish", "mish"),
                      std::pair("Tanh", "tanh"),
                      std::pair("Sigmoid", "sigmoid"),
                      std::pair("LogSigmoid", "log_sigmoid"),
                      std::pair("Hardsigmoid", "hardsigmoid"),
                      std::pair("Hardswish", "hardswish"),
                      std::pair("GELU", "gelu")),
    [](const auto& info) { return info.param.first; });

TEST(GraphOf, SequentialCallsItsChildrenInOrder) {
  std::vector<ModuleNode> modules(4);
  modules[1].fqn = "net";
  modules[1].type = "torch.nn.modules.container.Sequential";
  modules[2].fqn = "net.1";
  modules[3].fqn = "net.0";
  const GraphModule module = GraphModule::Create(modules, {}).value();

  const auto graph = GraphOf(module, 1);

  ASSERT_THAT(graph, IsOk());
  EXPECT_EQ(GraphText(*graph),
            "call_1 = call_module net.1(%input)\n"
            "call_2 = call_module net.0(%call_1)\n"
            "output = (%call_2)\n");
}

TEST(GraphOf, PrefersTheModulesOwn) {
  ModuleNode root;
  root.type = "torch.nn.ReLU";
  root.graph = Graph{
      {{.name = "x", .op = NodeOp::kPlaceholder},
       {.name = "output", .op = NodeOp::kOutput, .args = {{NodeRef{"x"}}}}}};
  const GraphModule module = GraphModule::Create({root}, {}).value();

  EXPECT_THAT(GraphOf(module, 0), IsOkAndHolds(Eq(*root.graph)));
}

struct BadCase {
  std::string name;
  Case module;
  absl::StatusCode code;
  std::string message;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class NoGraphTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(NoGraphTest, NamesModuleAndType) {
  EXPECT_THAT(GraphOf(ModuleOf(GetParam().module), 1),
              AllOf(StatusIs(GetParam().code, HasSubstr(GetParam().message)),
                    HasMetadata("fqn", Eq("m"))));
}

INSTANTIATE_TEST_SUITE_P(
    All, NoGraphTest,
    ::testing::Values(
        BadCase{"an unknown type",
                {.name = "", .type = "my.Attention"},
                absl::StatusCode::kUnimplemented,
                "module \"m\" has no graph and its type is none that the core "
                "can write one for; export it with torch.export or give the "
                "module a graph; got: my.Attention"},
        BadCase{"no type",
                {.name = "", .type = ""},
                absl::StatusCode::kUnimplemented,
                "got: no type"},
        BadCase{"a linear without weight",
                {.name = "", .type = "Linear"},
                absl::StatusCode::kInvalidArgument,
                "needs a parameter \"weight\", or attributes that say its "
                "shape; got: none"},
        BadCase{"a softmax without dim",
                {.name = "", .type = "Softmax"},
                absl::StatusCode::kInvalidArgument,
                "needs an attribute \"dim\" (an integer); got: none"},
        BadCase{"a norm without shape",
                {.name = "", .type = "LayerNorm"},
                absl::StatusCode::kInvalidArgument,
                "needs an attribute \"normalized_shape\" (a list); got: none"},
        BadCase{"an unflatten without a dim",
                {.name = "",
                 .type = "Unflatten",
                 .attributes = {{"unflattened_size", kShape}}},
                absl::StatusCode::kInvalidArgument,
                "needs attributes \"dim\" (an integer) and "},
        BadCase{"a container",
                {.name = "", .type = "torch.nn.ModuleList"},
                absl::StatusCode::kInvalidArgument,
                "module \"m\" of type torch.nn.ModuleList has no forward: a "
                "graph of the module around it must call its children"},
        BadCase{"an attribute of another type",
                {.name = "",
                 .type = "torch.nn.Softmax",
                 .attributes = {{"dim", {1.5}}}},
                absl::StatusCode::kInvalidArgument,
                "module \"m\" of type Softmax: attribute \"dim\" must be an "
                "integer; got: 1.5"},
        BadCase{"an attribute that is unknown",
                {.name = "",
                 .type = "Softmax",
                 .attributes = {{"axis", {int64_t{1}}}}},
                absl::StatusCode::kInvalidArgument,
                "its attributes are dim, dtype, inplace; got: axis=1"},
        BadCase{"a rate above one",
                {.name = "", .type = "Dropout", .attributes = {{"p", {1.5}}}},
                absl::StatusCode::kInvalidArgument,
                "needs an attribute \"p\" from 0 to 1; got: 1.5"},
        BadCase{"a padding row that is none",
                {.name = "",
                 .type = "Embedding",
                 .parameters = {"weight"},
                 .attributes = {{"padding_idx", {int64_t{8}}}}},
                absl::StatusCode::kInvalidArgument,
                "padding_idx must be one of the 8 rows; got: 8"},
        BadCase{"an embedding with max norm",
                {.name = "",
                 .type = "Embedding",
                 .parameters = {"weight"},
                 .attributes = {{"max_norm", {1.0}}}},
                absl::StatusCode::kUnimplemented,
                "got: max_norm=1"}),
    CaseName<BadCase>);

}  // namespace
}  // namespace shardplane
