#include "proto/convert/optimizer.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<OptimizerOptions> Parse(const std::string& text) {
  return FromProto(ParseText<pb::Optimizer>(text), "optimizer");
}

TEST(OptimizerTest, EveryKindComesBackWithItsGroups) {
  const SgdOptions sgd{.lr = 0.25,
                       .momentum = 0.9,
                       .dampening = 0,
                       .weight_decay = 0.01,
                       .nesterov = true,
                       .maximize = true};
  const AdamOptions adam{.kind = AdamKind::kAdam,
                         .lr = 0.5,
                         .beta1 = 0,
                         .beta2 = 0.25,
                         .eps = 0,
                         .weight_decay = 0.125,
                         .amsgrad = true,
                         .maximize = true};
  AdamOptions adamw = adam;
  adamw.kind = AdamKind::kAdamW;
  for (const Hyperparameters& values :
       std::vector<Hyperparameters>{sgd, adam, adamw}) {
    SCOPED_TRACE(KindName(values));
    const OptimizerOptions options{
        .values = values,
        .groups = {{.patterns = {"*.bias", "norm.*"}, .values = values}}};
    EXPECT_THAT(FromProto(ToProto(options), "optimizer"),
                IsOkAndHolds(options));
  }
}

TEST(OptimizerTest, AdamHasTorchsDefaults) {
  EXPECT_THAT(Parse("adam {}"),
              IsOkAndHolds(OptimizerOptions{AdamOptions{.kind = AdamKind::kAdam,
                                                        .lr = 1e-3,
                                                        .beta1 = 0.9,
                                                        .beta2 = 0.999,
                                                        .eps = 1e-8,
                                                        .weight_decay = 0}}));
  EXPECT_THAT(Parse("adamw { lr: 0.5 }"),
              IsOkAndHolds(OptimizerOptions{AdamOptions{
                  .kind = AdamKind::kAdamW, .lr = 0.5, .weight_decay = 0.01}}));
  EXPECT_THAT(Parse("adamw { weight_decay: 0 }"),
              IsOkAndHolds(OptimizerOptions{
                  AdamOptions{.kind = AdamKind::kAdamW, .weight_decay = 0}}));
}

TEST(OptimizerTest, BadOptimizersAreRefused) {
  const std::vector<BadMessage> table{
      {"no kind", "", "optimizer"},
      {"groups alone", "groups { patterns: '*' sgd { lr: 1 } }", "optimizer"},
      {"negative lr", "sgd { lr: -1 }", "optimizer.sgd.lr"},
      {"lr not a number", "sgd { lr: nan }", "optimizer.sgd.lr"},
      {"nesterov without momentum", "sgd { lr: 1 nesterov: true }",
       "optimizer.sgd.nesterov"},
      {"beta of one", "adam { beta1: 1 }", "optimizer.adam.beta1"},
      {"negative eps", "adamw { eps: -1 }", "optimizer.adamw.eps"},
      {"unknown without a name", "unknown: ''", "optimizer.unknown"},
      {"unknown", "unknown: 'Lion'", "optimizer.unknown",
       absl::StatusCode::kUnimplemented},
      {"group without values", "sgd { lr: 1 } groups { patterns: '*' }",
       "optimizer.groups[0]"},
      {"group without a pattern", "sgd { lr: 1 } groups { sgd { lr: 1 } }",
       "optimizer.groups[0].patterns"},
      {"group of another kind",
       "adam {} groups { patterns: '*' adam {} } "
       "groups { patterns: '*' adamw {} }",
       "optimizer.groups[1]"},
      {"bad value in a group",
       "adam {} groups { patterns: '*' adam { beta2: nan } }",
       "optimizer.groups[0].adam.beta2"},
  };
  for (const BadMessage& bad : table) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(Parse(bad.text).status(), IsFieldError(bad.code, bad.field));
  }
}

TEST(OptimizerTest, TooManyPatternsAreRefused) {
  pb::Optimizer message = ToProto({});
  pb::ParameterGroup& group = *message.add_groups();
  group.mutable_sgd()->set_lr(1);
  for (int i = 1; i < kMaxGroupPatterns; ++i) group.add_patterns("*");
  EXPECT_THAT(FromProto(message, "optimizer"), IsOk());
  group.add_patterns("*");
  EXPECT_THAT(
      FromProto(message, "optimizer").status(),
      IsFieldError(absl::StatusCode::kInvalidArgument, "optimizer.groups"));
}

TEST(ClipNormTest, IsAboveZero) {
  EXPECT_THAT(CheckClipNorm(0.5, "clip_norm"), IsOk());
  EXPECT_THAT(
      CheckClipNorm(std::numeric_limits<double>::infinity(), "clip_norm"),
      IsOk());
  for (const double bad :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(
        CheckClipNorm(bad, "train.clip_norm"),
        IsFieldError(absl::StatusCode::kInvalidArgument, "train.clip_norm"));
  }
}

}  // namespace
}  // namespace shardplane
