#include "common/kept_values.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// One op on %0, %1, ... that makes the value after them.
std::vector<ValueId> KeptBy(const std::string& target, int operands,
                            std::vector<ValueId> differentiable) {
  Op op{.target = target, .results = {operands}};
  Segment segment{.outputs = {operands}};
  for (int i = 0; i < operands; ++i) {
    op.args.push_back({ValueRef{i}});
    segment.inputs.push_back(i);
  }
  segment.ops = {op};
  segment.differentiable_inputs = std::move(differentiable);
  segment.differentiable_outputs = {operands};
  return KeptValues(segment);
}

// An operand of a product is kept for the gradient of the other one; the bias
// is none.
TEST(KeptValuesTest, ProductsKeepWhatAnotherAsksFor) {
  EXPECT_THAT(KeptBy("aten.linear.default", 3, {0, 1, 2}), ElementsAre(0, 1));
  EXPECT_THAT(KeptBy("aten.linear.default", 3, {1}), ElementsAre(0));
  EXPECT_THAT(KeptBy("aten.linear.default", 3, {2}), IsEmpty());
}

TEST(KeptValuesTest, OthersKeepWhatTheTableSays) {
  EXPECT_THAT(KeptBy("aten.gelu.default", 1, {0}), ElementsAre(0));
  EXPECT_THAT(KeptBy("aten.relu.default", 1, {0}), ElementsAre(1));
  EXPECT_THAT(KeptBy("aten.add.Tensor", 2, {0, 1}), IsEmpty());
  EXPECT_THAT(KeptBy("aten.gelu.default", 1, {}), IsEmpty());
  EXPECT_THAT(KeptBy("aten.detach.default", 1, {0}), IsEmpty());
}

TEST(KeptValuesTest, OfAnUnknownOpNobodyKnows) {
  EXPECT_THAT(KeptBy("aten.mystery.default", 2, {0}), ElementsAre(0, 1, 2));
}

// gelu asks because the product does.
TEST(KeptValuesTest, WhatIsMadeOfAskingOnesAsks) {
  Segment segment{.inputs = {0, 1},
                  .outputs = {3},
                  .ops = {{.target = "aten.mm.default",
                           .args = {{ValueRef{0}}, {ValueRef{1}}},
                           .results = {2}},
                          {.target = "aten.gelu.default",
                           .args = {{ValueRef{2}}},
                           .results = {3}}},
                  .differentiable_inputs = {1},
                  .differentiable_outputs = {3}};
  EXPECT_THAT(KeptValues(segment), ElementsAre(0, 2));
}

}  // namespace
}  // namespace shardplane
