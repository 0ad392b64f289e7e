#include "common/units.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/example_modules.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

constexpr char kSequential[] = "torch.nn.modules.container.Sequential";
constexpr char kList[] = "torch.nn.modules.container.ModuleList";

// "a: 0, a.up: 0" of the modules that own parameters.
std::string Text(const GraphModule& module,
                 int64_t unit_bytes = kDefaultUnitBytes) {
  const std::vector<int> units = UnitsOf(module, unit_bytes);
  std::vector<std::string> texts;
  for (size_t i = 0; i < units.size(); ++i) {
    if (module.ParametersOf(static_cast<int>(i)).empty()) continue;
    texts.push_back(absl::StrCat(module.modules()[i].fqn, ": ", units[i]));
  }
  return absl::StrJoin(texts, ", ");
}

// 256 KB of weights each.
TEST(UnitsTest, AreTheLayersOfAList) {
  const GraphModule module = ModuleBuilder("Root")
                                 .Linear("embed", 256, 256)
                                 .Module("layers", kList)
                                 .Module("layers.0", "Block")
                                 .Linear("layers.0.up", 256, 256)
                                 .Module("layers.0.mlp", kSequential)
                                 .Linear("layers.0.mlp.0", 256, 256)
                                 .Module("layers.1", "Block")
                                 .Linear("layers.1.up", 256, 256)
                                 .Linear("head", 256, 256)
                                 .Build();
  EXPECT_EQ(Text(module),
            "embed: 0, layers.0.up: 1, layers.0.mlp.0: 1, layers.1.up: 2, "
            "head: 3");
}

TEST(UnitsTest, AreTheBlocksOfASequential) {
  const GraphModule module = ModuleBuilder(kSequential)
                                 .Module("0", kSequential)
                                 .Module("0.0", "Block")
                                 .Linear("0.0.up", 256, 256)
                                 .Linear("0.0.down", 256, 256)
                                 .Module("0.1", "Block")
                                 .Linear("0.1.up", 256, 256)
                                 .Linear("1", 256, 256)
                                 .Build();
  EXPECT_EQ(Text(module), "0.0.up: 0, 0.0.down: 0, 0.1.up: 1, 1: 2");
}

TEST(UnitsTest, JoinWhatIsSmall) {
  const GraphModule module =
      ModuleBuilder("Root")
          .Linear("a", 4, 4)
          .Linear("b", 256, 256)
          .Linear("c", 4, 4)
          .Linear("d", 4, 4)
          .Linear("e", 256, 256)
          .Module("f", "torch.nn.modules.activation.ReLU")
          .Build();
  EXPECT_EQ(Text(module), "a: 0, b: 0, c: 0, d: 0, e: 1");
  EXPECT_EQ(UnitsOf(module).back(), -1);
  EXPECT_EQ(Text(module, 0), "a: 0, b: 1, c: 2, d: 3, e: 4");
}

TEST(UnitsTest, TheRootsOwnParametersAreInTheFirst) {
  const GraphModule module = ModuleBuilder("Root")
                                 .Parameter("scale", {65536})
                                 .Linear("a", 256, 256)
                                 .Build();
  EXPECT_EQ(Text(module), ": 0, a: 1");
}

}  // namespace
}  // namespace shardplane
