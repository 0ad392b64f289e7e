#include "proto/convert/module.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/convert/random_values.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<GraphModule> Module(const std::string& text) {
  return FromProto(ParseText<pb::Module>(text), "deployment.module");
}

TEST(ModuleTest, RandomArgumentsAndGraphsComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    const Argument argument = random.AnyArgument();
    const auto argument_back = FromProto(ToProto(argument), "argument");
    ASSERT_TRUE(argument_back.ok()) << argument_back.status();
    EXPECT_TRUE(*argument_back == argument);
    const Graph graph = random.AnyGraph();
    const auto graph_back = FromProto(ToProto(graph), "graph");
    ASSERT_TRUE(graph_back.ok()) << graph_back.status();
    EXPECT_TRUE(*graph_back == graph);
  }
}

TEST(ModuleTest, RandomModulesComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 300; ++i) {
    const GraphModule module = random.AnyModule();
    const auto back = FromProto(ToProto(module), "module");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == module);
  }
}

TEST(ModuleTest, MetaParametersGetTheDefaultOfTheirModule) {
  const auto module = Module(R"(
    modules {}
    modules { fqn: "net" type: "torch.nn.Linear" }
    modules { fqn: "norm" type: "torch.nn.LayerNorm" }
    parameters { fqn: "net.weight" meta: true
                 type { dtype: DTYPE_FLOAT32 shape: [3, 4] } }
    parameters { fqn: "net.bias" meta: true initializer { ones {} }
                 type { dtype: DTYPE_FLOAT32 shape: 3 } }
    parameters { fqn: "norm.weight" meta: true
                 type { dtype: DTYPE_FLOAT32 shape: 3 } }
    parameters { fqn: "norm.bias"
                 type { dtype: DTYPE_FLOAT32 shape: 3 } })");
  ASSERT_TRUE(module.ok()) << module.status();
  // 1 / sqrt(fan_in), as torch.nn.Linear.
  EXPECT_EQ(module->FindParameter("net.weight")->initializer,
            (Initializer{Initializer::Kind::kUniform, -0.5, 0.5}));
  EXPECT_EQ(module->FindParameter("net.bias")->initializer,
            (Initializer{Initializer::Kind::kOnes}));
  EXPECT_EQ(module->FindParameter("norm.weight")->initializer,
            (Initializer{Initializer::Kind::kOnes}));
  EXPECT_EQ(module->FindParameter("norm.bias")->initializer, std::nullopt);
}

TEST(ModuleTest, TypedModulesHaveTheParametersOfTheirAttributes) {
  const auto module = Module(R"(
    modules { type: "Sequential" }
    modules { fqn: "embed" type: "Embedding"
              attributes { key: "num_embeddings" value { int_value: 8 } }
              attributes { key: "embedding_dim" value { int_value: 4 } }
              attributes { key: "padding_idx" value { int_value: -1 } } }
    modules { fqn: "head" type: "torch.nn.Linear"
              attributes { key: "in_features" value { int_value: 4 } }
              attributes { key: "out_features" value { int_value: 2 } }
              attributes { key: "dtype" value { dtype: DTYPE_FLOAT64 } } })");
  ASSERT_TRUE(module.ok()) << module.status();
  const std::vector<Parameter> expected = {
      {.fqn = "embed.weight",
       .type = {DType::kFloat32, {8, 4}},
       .initializer = Initializer{Initializer::Kind::kNormal, 0, 1, 7}},
      {.fqn = "head.weight",
       .type = {DType::kFloat64, {2, 4}},
       .initializer = Initializer{Initializer::Kind::kUniform, -0.5, 0.5}},
      {.fqn = "head.bias",
       .type = {DType::kFloat64, {2}},
       .initializer = Initializer{Initializer::Kind::kUniform, -0.5, 0.5}}};
  EXPECT_TRUE(module->parameters() == expected);
  // What is sent on lists them, and means the same.
  const auto back = FromProto(ToProto(*module), "module");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(*back == *module);
}

TEST(ModuleTest, ATiedWeightMayLeaveOutItsType) {
  const auto module = Module(R"(
    modules {}
    modules { fqn: "embed" type: "Embedding"
              attributes { key: "num_embeddings" value { int_value: 8 } }
              attributes { key: "embedding_dim" value { int_value: 4 } } }
    modules { fqn: "head" type: "Linear" }
    parameters { fqn: "head.weight" alias_of: "embed.weight" meta: true
                 requires_grad: true })");
  ASSERT_TRUE(module.ok()) << module.status();
  EXPECT_EQ(module->FindParameter("head.weight")->type,
            (TensorType{DType::kFloat32, {8, 4}}));
  EXPECT_EQ(module->FindParameter("head.weight")->initializer,
            module->FindParameter("embed.weight")->initializer);
}

TEST(ModuleTest, MetaParametersStartFromTheModulesFiles) {
  const auto module = Module(R"(
    modules {}
    modules { fqn: "embed" type: "Embedding"
              attributes { key: "num_embeddings" value { int_value: 8 } }
              attributes { key: "embedding_dim" value { int_value: 4 } } }
    modules { fqn: "head" type: "Linear" }
    modules { fqn: "own" type: "Mine" }
    parameters { fqn: "head.weight" alias_of: "embed.weight" meta: true }
    parameters { fqn: "own.scale" meta: true initializer { ones {} }
                 type { dtype: DTYPE_FLOAT32 } }
    parameters { fqn: "own.table" meta: true
                 initializer { files { path: "other.safetensors" } }
                 type { dtype: DTYPE_INT64 shape: 2 } }
    parameters { fqn: "own.data" type { dtype: DTYPE_FLOAT32 shape: 2 } }
    weights: "llama")");
  ASSERT_TRUE(module.ok()) << module.status();
  const auto initializer = [&](const char* fqn) {
    return module->FindParameter(fqn)->initializer;
  };
  const Initializer tied{.kind = Initializer::Kind::kFiles,
                         .path = "llama",
                         .names = {"embed.weight", "head.weight"}};
  EXPECT_EQ(initializer("embed.weight"), tied);
  EXPECT_EQ(initializer("head.weight"), tied);
  EXPECT_EQ(initializer("own.scale"), Initializer{Initializer::Kind::kOnes});
  EXPECT_EQ(initializer("own.table"),
            (Initializer{.kind = Initializer::Kind::kFiles,
                         .path = "other.safetensors",
                         .names = {"own.table"}}));
  EXPECT_EQ(initializer("own.data"), std::nullopt);
  const auto back = FromProto(ToProto(*module), "module");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(*back == *module);
}

class BadModuleTest : public testing::TestWithParam<BadMessage> {};

TEST_P(BadModuleTest, IsRefusedWithItsField) {
  EXPECT_THAT(Module(GetParam().text).status(),
              IsFieldError(GetParam().code, absl::StrCat("deployment.module",
                                                         GetParam().field)));
}

std::string WithNode(const std::string& node) {
  return absl::StrCat(
      "modules { graph { nodes { name: 'x' op: "
      "OP_PLACEHOLDER } nodes { ",
      node, " } } }");
}

std::string WithParameter(const std::string& parameter) {
  return absl::StrCat("modules {} parameters { ", parameter, " }");
}

INSTANTIATE_TEST_SUITE_P(
    All, BadModuleTest,
    testing::Values(
        BadMessage{"NoModules", "", ".modules"},
        BadMessage{"NoRoot", "modules { fqn: 'a' }", ""},
        BadMessage{"EmptyGraph", "modules { graph {} }",
                   ".modules[0].graph.nodes"},
        BadMessage{"NoName", WithNode("op: OP_OUTPUT"),
                   ".modules[0].graph.nodes[1].name"},
        BadMessage{"NoOp", WithNode("name: 'y'"),
                   ".modules[0].graph.nodes[1].op"},
        BadMessage{"UnknownOp", WithNode("name: 'y' op: 42"),
                   ".modules[0].graph.nodes[1].op"},
        BadMessage{"NoTarget", WithNode("name: 'y' op: OP_CALL_FUNCTION"),
                   ".modules[0].graph.nodes[1].target"},
        BadMessage{"NoArgument", WithNode("name: 'y' op: OP_OUTPUT args {}"),
                   ".modules[0].graph.nodes[1].args[0]"},
        BadMessage{"NoKeywordArgument",
                   WithNode("name: 'y' op: OP_OUTPUT kwargs { key: 'k' }"),
                   ".modules[0].graph.nodes[1].kwargs[\"k\"]"},
        BadMessage{"NoListItem",
                   WithNode("name: 'y' op: OP_OUTPUT args { list { items { "
                            "int_value: 1 } items {} } }"),
                   ".modules[0].graph.nodes[1].args[0].list.items[1]"},
        BadMessage{"NoDType",
                   WithNode("name: 'y' op: OP_OUTPUT args { dtype: "
                            "DTYPE_UNSPECIFIED }"),
                   ".modules[0].graph.nodes[1].args[0].dtype"},
        BadMessage{"BadResult",
                   WithNode("name: 'y' op: OP_OUTPUT results { dtype: "
                            "DTYPE_INT8 shape: -3 }"),
                   ".modules[0].graph.nodes[1].results[0].shape[0]"},
        BadMessage{"NoAttribute", "modules { attributes { key: 'bias' } }",
                   ".modules[0].attributes[\"bias\"]"},
        BadMessage{"UnknownReference",
                   WithNode("name: 'y' op: OP_OUTPUT args { node: 'z' }"), ""},
        BadMessage{"NoFqn", WithParameter("type { dtype: DTYPE_INT8 }"),
                   ".parameters[0].fqn"},
        BadMessage{"NoType", WithParameter("fqn: 'w'"), ""},
        BadMessage{"NoDTypeOfAParameter", WithParameter("fqn: 'w' type {}"),
                   ".parameters[0].type.dtype"},
        BadMessage{"IntegerWithGradient",
                   WithParameter("fqn: 'w' requires_grad: true type { dtype: "
                                 "DTYPE_INT64 }"),
                   ".parameters[0].requires_grad"},
        BadMessage{"InitializerWithData",
                   WithParameter("fqn: 'w' initializer { ones {} } type { "
                                 "dtype: DTYPE_FLOAT32 }"),
                   ".parameters[0].initializer"},
        BadMessage{"InitializerWithoutKind",
                   WithParameter("fqn: 'w' meta: true initializer {} type { "
                                 "dtype: DTYPE_FLOAT32 }"),
                   ".parameters[0].initializer"},
        BadMessage{"FilesWithoutPath",
                   WithParameter("fqn: 'w' meta: true initializer { files {} } "
                                 "type { dtype: DTYPE_FLOAT32 }"),
                   ".parameters[0].initializer.files.path"},
        BadMessage{"ZeroRowOfFiles",
                   WithParameter("fqn: 'w' meta: true type { dtype: "
                                 "DTYPE_FLOAT32 shape: 2 } initializer { "
                                 "files { path: 'f' } zero_row: 1 }"),
                   ".parameters[0].initializer.zero_row"},
        BadMessage{"NegativeZeroRow",
                   WithParameter("fqn: 'w' meta: true type { dtype: "
                                 "DTYPE_FLOAT32 shape: 2 } initializer { "
                                 "ones {} zero_row: -1 }"),
                   ".parameters[0].initializer.zero_row"},
        BadMessage{"ZeroRowOutside",
                   WithParameter("fqn: 'w' meta: true type { dtype: "
                                 "DTYPE_FLOAT32 shape: 2 } initializer { "
                                 "ones {} zero_row: 2 }"),
                   ".parameters[0].initializer.zero_row"},
        BadMessage{"HugeAttributes",
                   "modules { type: 'Linear' attributes { key: 'in_features' "
                   "value { int_value: 9223372036854775807 } } attributes { "
                   "key: 'out_features' value { int_value: 2 } } }",
                   ".modules.shape"},
        BadMessage{"IntegersToTrain",
                   "modules { type: 'RMSNorm' attributes { key: "
                   "'normalized_shape' value { int_value: 2 } } attributes { "
                   "key: 'dtype' value { dtype: DTYPE_INT64 } } }",
                   ".modules.requires_grad"},
        BadMessage{"UnknownAttribute",
                   "modules { type: 'ReLU' attributes { key: 'slope' value { "
                   "none {} } } }",
                   ""},
        BadMessage{"UnknownAlias",
                   WithParameter("fqn: 'w' alias_of: 'v' type { dtype: "
                                 "DTYPE_FLOAT32 }"),
                   ""}),
    [](const auto& info) { return info.param.name; });

TEST(ModuleTest, DeepListsAreRefused) {
  pb::Argument message;
  pb::Argument* inner = &message;
  for (int i = 0; i < kMaxArgumentDepth; ++i) {
    inner = inner->mutable_list()->add_items();
  }
  inner->mutable_none();
  EXPECT_TRUE(FromProto(message, "argument").ok());
  inner->mutable_list();
  EXPECT_EQ(FromProto(message, "argument").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ModuleTest, GarbageIsRefusedOrRead) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 1000; ++i) {
    pb::Module module = ToProto(random.AnyModule());
    *module.mutable_modules(0)->mutable_graph() = ToProto(random.AnyGraph());
    pb::Module message;
    if (message.ParseFromString(
            Garble(module.SerializeAsString(), random.engine()))) {
      FromProto(message, "module").status().IgnoreError();
    }
  }
}

}  // namespace
}  // namespace shardplane
