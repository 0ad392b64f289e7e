#include "common/written_graphs.h"

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
