#include "bench/op_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "ATen/Parallel.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

constexpr double kMaxNanoseconds = 2000;
// Another process may take the core for a while; not five times in a row from
// one side alone.
constexpr int kAttempts = 5;

class OpCostTest : public testing::TestWithParam<size_t> {};

TEST_P(OpCostTest, ExecutorAddsUnderTwoMicroseconds) {
  at::set_num_threads(1);
  const OpChain chain = OpChains()[GetParam()];
  for (const OpCostMode mode : kOpCostModes) {
    double best = 0;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const absl::StatusOr<OpCost> cost =
          MeasureOpCost(chain, mode, /*rounds=*/41);
      ASSERT_THAT(cost, IsOk());
      const double median = Quantile(cost->difference, 0.5);
      best = attempt == 0 ? median : std::min(best, median);
      if (best < kMaxNanoseconds) break;
    }
    EXPECT_LT(best, kMaxNanoseconds) << ToString(mode);
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpCostTest,
                         testing::Range(size_t{0}, OpChains().size()),
                         [](const auto& info) {
                           return OpChains()[info.param].name;
                         });

TEST(QuantileTest, InterpolatesBetweenSortedValues) {
  EXPECT_EQ(Quantile({5}, 0.25), 5);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_EQ(Quantile({4, 1, 3, 2, 5}, 0.25), 2);
  EXPECT_EQ(Quantile({4, 1}, 1), 4);
}

}  // namespace
}  // namespace shardplane
