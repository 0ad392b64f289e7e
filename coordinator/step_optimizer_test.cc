#include "coordinator/step_optimizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// embed.weight, head.weight (another name of it), head.bias and a buffer.
GraphModule TiedModule() {
  const TensorType type{DType::kFloat32, {4, 4}};
  return *GraphModule::Create(
      {{.fqn = "", .type = "M"},
       {.fqn = "embed", .type = "E"},
       {.fqn = "head", .type = "H"}},
      {{.fqn = "embed.weight", .type = type},
       {.fqn = "head.weight", .type = type, .alias_of = "embed.weight"},
       {.fqn = "head.bias", .type = type},
       {.fqn = "head.scale", .type = type, .requires_grad = false},
       {.fqn = "head.mask",
        .type = type,
        .requires_grad = false,
        .buffer = true}});
}

absl::Status Check(std::vector<std::string> patterns) {
  return CheckOptimizer({SgdOptions(), {{patterns, SgdOptions()}}},
                        TiedModule(), "", "train.optimizer");
}

TEST(CheckOptimizerTest, PatternsMatchParametersByTheirFirstName) {
  EXPECT_THAT(Check({"embed.weight", "head.*", "head.scale"}), IsOk());
  EXPECT_THAT(
      Check({"head.weight"}),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                     HasSubstr("got: 'head.weight'")),
            HasReason("PATTERN_WITHOUT_MATCH"),
            HasMetadata("field", "train.optimizer.groups[0].patterns[0]")));
  EXPECT_THAT(Check({"head.*", "head.mask"}),
              HasMetadata("field", "train.optimizer.groups[0].patterns[1]"));
}

TEST(CheckOptimizerTest, StateIsOfOneKind) {
  const OptimizerOptions sgd{SgdOptions()};
  EXPECT_THAT(CheckOptimizer(sgd, TiedModule(), "", "f"), IsOk());
  EXPECT_THAT(CheckOptimizer(sgd, TiedModule(), "SGD", "f"), IsOk());
  EXPECT_THAT(CheckOptimizer(sgd, TiedModule(), "AdamW", "update.optimizer"),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("expected AdamW")),
                    HasReason("OPTIMIZER_KIND_DIFFERS"),
                    HasMetadata("field", "update.optimizer"),
                    HasMetadata("remedy", "reset the optimizer first")));
}

}  // namespace
}  // namespace shardplane
