#include "common/recompute.h"

#include <string>
#include <vector>

#include "common/compile_fixture.h"
#include "common/example_modules.h"
#include "common/run_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr char kSequential[] = "torch.nn.modules.container.Sequential";

// a and b, of an up and a down each, 10 -> 16 -> 10.
GraphModule TwoBlocks() {
  return ModuleBuilder(kSequential)
      .Module("a", kSequential)
      .Linear("a.up", 10, 16)
      .Linear("a.down", 16, 10)
      .Module("b", kSequential)
      .Linear("b.up", 10, 16)
      .Linear("b.down", 16, 10)
      .Build();
}

Request BlocksOn(int tp, std::vector<std::string> recompute) {
  return {.module = TwoBlocks(),
          .plan = {Entry("*.up", Colwise()), Entry("*.down", Rowwise())},
          .mesh = {{"tp", tp}},
          .recompute = std::move(recompute)};
}

int64_t Activations(const Request& request) {
  return PeakOfRun(Compile(request)->program, {0}).activations;
}

TEST(RecomputeTest, ABlockRunsAgainBeforeItsBackward) {
  const auto compiled = Compile(BlocksOn(1, {"a"}));
  const std::string steps = Steps(compiled);
  // Forward, a is not recorded; b is.
  const size_t backward = steps.find(" = ones");
  const size_t again = steps.find("recording", backward);
  ASSERT_NE(again, std::string::npos) << steps;
  EXPECT_EQ(Count(steps.substr(0, backward), "recording %12"), 1) << steps;
  EXPECT_EQ(Count(steps.substr(0, backward), "segment 0\n"), 1) << steps;
  EXPECT_EQ(Count(steps.substr(0, backward), "segment 1\n"), 1) << steps;
  EXPECT_EQ(Count(steps.substr(0, backward), "aten.linear"), 4) << steps;
  EXPECT_EQ(Count(steps.substr(backward), "aten.linear"), 2) << steps;
  const std::string first = steps.substr(backward, again - backward);
  EXPECT_EQ(Count(first, "backward of"), 2) << steps;  // of b
  EXPECT_EQ(Count(steps.substr(again), "backward of"), 2) << steps;
}

TEST(RecomputeTest, ItsCollectivesRunAgain) {
  const auto plain = Compile(BlocksOn(2, {}));
  const auto both = Compile(BlocksOn(2, {"*"}));
  EXPECT_EQ(Count(Steps(both), "all_reduce"),
            Count(Steps(plain), "all_reduce") + 2);
  EXPECT_EQ(Collectives(both->program, Phase::kForward, {0}).size(), 2);
}

TEST(RecomputeTest, ActivationsAreNotKept) {
  EXPECT_LT(Activations(BlocksOn(1, {"*"})), Activations(BlocksOn(1, {})));
}

TEST(RecomputeTest, ItsProductsCountAgain) {
  const DeviceMesh mesh = *DeviceMesh::Create({{"tp", 1}});
  const Flops plain = Compile(BlocksOn(1, {}))->flops.On(mesh, {0});
  const Flops a = Compile(BlocksOn(1, {"a"}))->flops.On(mesh, {0});
  EXPECT_EQ(a.forward, plain.forward);
  EXPECT_EQ(a.backward, plain.backward + plain.forward / 2);
}

TEST(RecomputeTest, WithoutALossNothingRunsAgain) {
  Request request = BlocksOn(1, {"*"});
  request.loss = false;
  EXPECT_EQ(Count(Steps(Compile(request)), "aten.linear"), 4);
}

// A block within one that is named is not named once more.
TEST(RecomputeTest, OuterModulesHoldInnerOnes) {
  const std::string steps = Steps(Compile(BlocksOn(1, {"", "a", "a.up"})));
  EXPECT_EQ(Count(steps, "aten.linear"), 8) << steps;
}

TEST(RecomputeTest, PatternsAreThoseOfAPlan) {
  const GraphModule module = TwoBlocks();
  std::vector<Diagnostic> diagnostics;
  std::vector<bool> modules = RecomputedModules(module, {"*.up"}, &diagnostics);
  EXPECT_THAT(diagnostics, IsEmpty());
  std::vector<std::string> names;
  for (size_t i = 0; i < modules.size(); ++i) {
    if (modules[i]) names.push_back(module.modules()[i].fqn);
  }
  EXPECT_THAT(names, ElementsAre("a.up", "b.up"));
  modules = RecomputedModules(module, {"c"}, &diagnostics);
  EXPECT_THAT(modules, Not(testing::Contains(true)));
  ASSERT_THAT(diagnostics, SizeIs(1));
  EXPECT_EQ(diagnostics[0].reason, "PATTERN_WITHOUT_MATCH");
  EXPECT_EQ(diagnostics[0].pattern, "c");
  EXPECT_THAT(diagnostics[0].message, HasSubstr("recompute: "));
}

}  // namespace
}  // namespace shardplane
