#include "common/written_graphs.h"

#include <optional>

#include "common/example_modules.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

GraphModule Stack() {
  return ModuleBuilder("Root")
      .Linear("a", 4, 8)
      .Linear("b", 4, 8)
      .Linear("c", 8, 4)
      .Module("d", "torch.nn.Linear")
      .Parameter("d.weight", {8, 4})
      .Build();
}

TEST(WrittenGraphs, ModulesThatAreAlikeShareOne) {
  const GraphModule module = Stack();
  WrittenGraphs graphs(module);

  const auto a = graphs.Of(module.ModuleIndex("a"));
  const auto b = graphs.Of(module.ModuleIndex("b"));
  const auto c = graphs.Of(module.ModuleIndex("c"));  // of other sizes
  const auto d = graphs.Of(module.ModuleIndex("d"));  // without a bias

  ASSERT_THAT(a, IsOk());
  ASSERT_THAT(b, IsOk());
  ASSERT_THAT(c, IsOk());
  ASSERT_THAT(d, IsOk());
  EXPECT_EQ(a->graph, b->graph);
  EXPECT_NE(a->graph, c->graph);
  EXPECT_NE(a->graph, d->graph);
  EXPECT_EQ(*d->graph, *GraphOf(module, module.ModuleIndex("d")));
}

// A norm, and others that differ from it in one thing each.
TEST(WrittenGraphs, ModulesThatDifferShareNone) {
  const auto norm = [](const char* fqn, double eps, bool training) {
    ModuleNode node{
        .fqn = fqn,
        .type = "torch.nn.LayerNorm",
        .bases = {},
        .attributes = {{"normalized_shape", {int64_t{4}}}, {"eps", {eps}}},
        .graph = std::nullopt,
        .training = training};
    return node;
  };
  const auto weight = [](const char* fqn, DType dtype) {
    return Parameter{.fqn = fqn,
                     .type = {dtype, {4}},
                     .alias_of = "",
                     .initializer = std::nullopt};
  };
  const auto module =
      GraphModule::Create({{.fqn = "",
                            .type = "Root",
                            .bases = {},
                            .attributes = {},
                            .graph = std::nullopt},
                           norm("norm", 1e-5, true),
                           norm("again", 1e-5, true),
                           norm("eps", 1e-6, true),
                           norm("mode", 1e-5, false),
                           norm("dtype", 1e-5, true)},
                          {weight("norm.weight", DType::kFloat32),
                           weight("again.weight", DType::kFloat32),
                           weight("eps.weight", DType::kFloat32),
                           weight("mode.weight", DType::kFloat32),
                           weight("dtype.weight", DType::kFloat64)});
  ASSERT_THAT(module, IsOk());
  WrittenGraphs graphs(*module);
  const auto of = [&](const char* fqn) {
    return graphs.Of(module->ModuleIndex(fqn));
  };
  ASSERT_THAT(of("norm"), IsOk());
  EXPECT_EQ(of("again")->graph, of("norm")->graph);
  for (const char* other : {"eps", "mode", "dtype"}) {
    ASSERT_THAT(of(other), IsOk());
    EXPECT_NE(of(other)->graph, of("norm")->graph) << other;
  }
}

TEST(WrittenGraphs, ATargetIsThatOfTheModuleAtHand) {
  const GraphModule module = Stack();
  WrittenGraphs graphs(module);
  ASSERT_THAT(graphs.Of(module.ModuleIndex("a")), IsOk());

  const auto b = graphs.Of(module.ModuleIndex("b"));

  ASSERT_THAT(b, IsOk());
  EXPECT_EQ(b->TargetIn("b", "a.weight"), "b.weight");
  EXPECT_EQ(b->TargetIn("a", "a.weight"), "a.weight");
  const Graph graph;
  EXPECT_EQ((WrittenGraph{&graph, ""}.TargetIn("x.y", "weight")), "x.y.weight");
}

TEST(WrittenGraphs, AFailureIsOneEveryTime) {
  const GraphModule module = ModuleBuilder("my.Unknown").Build();
  WrittenGraphs graphs(module);

  EXPECT_FALSE(graphs.Of(0).ok());
  EXPECT_FALSE(graphs.Of(0).ok());
}

}  // namespace
}  // namespace shardplane
