#include "proto/convert/optimizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

TEST(OptimizerTest, SgdComesBack) {
  const OptimizerOptions options = SgdOptions{.lr = 0.25,
                                              .momentum = 0.9,
                                              .dampening = 0,
                                              .weight_decay = 0.01,
                                              .nesterov = true,
                                              .maximize = true};
  const auto back = FromProto(ToProto(options), "optimizer");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, options);
}

TEST(OptimizerTest, BadOptimizersAreRefused) {
  const std::vector<BadMessage> table{
      {"no kind", "", "optimizer"},
      {"negative lr", "sgd { lr: -1 }", "optimizer.sgd.lr"},
      {"lr not a number", "sgd { lr: nan }", "optimizer.sgd.lr"},
      {"nesterov without momentum", "sgd { lr: 1 nesterov: true }",
       "optimizer.sgd.nesterov"},
      {"unknown without a name", "unknown: ''", "optimizer.unknown"},
      {"unknown", "unknown: 'Lion'", "optimizer.unknown",
       absl::StatusCode::kUnimplemented},
  };
  for (const BadMessage& bad : table) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(
        FromProto(ParseText<pb::Optimizer>(bad.text), "optimizer").status(),
        IsFieldError(bad.code, bad.field));
  }
}

}  // namespace
}  // namespace shardplane
