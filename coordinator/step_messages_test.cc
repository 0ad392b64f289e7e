// StepRequest and StepResult <-> the coordinator's own values.
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/messages.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

pb::StepRequest Request(const std::string& action) {
  return ParseText<pb::StepRequest>("deployment: 'deployments/d' step: 1 " +
                                    action);
}
std::string Train(const std::string& fields) {
  return "train { program: 'deployments/d/programs/p' " + fields + " }";
}

TEST(StepMessagesTest, TrainHasItsClipNorm) {
  const auto call =
      StepCallFromProto(Request(Train("optimizer { adam {} } clip_norm: 0.5")));
  ASSERT_THAT(call, IsOk());
  const auto& train = std::get<TrainAction>(call->action);
  EXPECT_EQ(train.clip_norm, 0.5);
  EXPECT_EQ(train.optimizer, OptimizerOptions{AdamOptions()});
  const auto without = StepCallFromProto(Request(Train("")));
  ASSERT_THAT(without, IsOk());
  EXPECT_EQ(std::get<TrainAction>(without->action).clip_norm, std::nullopt);
}

TEST(StepMessagesTest, UpdateHasItsClipNorm) {
  const auto call = StepCallFromProto(
      Request("update { optimizer { sgd { lr: 1 } } clip_norm: inf }"));
  ASSERT_THAT(call, IsOk());
  const auto& update = std::get<UpdateAction>(call->action);
  EXPECT_EQ(update.optimizer, OptimizerOptions{SgdOptions{.lr = 1}});
  ASSERT_TRUE(update.clip_norm.has_value());
}

TEST(StepMessagesTest, BadUpdatesAreRefused) {
  const std::vector<BadMessage> table{
      {"train clipped at zero", Train("optimizer { adam {} } clip_norm: 0"),
       "train.clip_norm"},
      {"train clipped at no number",
       Train("optimizer { adam {} } clip_norm: nan"), "train.clip_norm"},
      {"clipping without an optimizer", Train("clip_norm: 1"),
       "train.clip_norm"},
      {"update clipped below zero",
       "update { optimizer { adam {} } clip_norm: -1 }", "update.clip_norm"},
      {"update without an optimizer", "update { clip_norm: 1 }",
       "update.optimizer"},
      {"bad hyperparameter", "update { optimizer { adam { beta1: 1 } } }",
       "update.optimizer.adam.beta1"},
      {"group of another kind",
       Train("optimizer { adam {} groups { patterns: '*' sgd {} } }"),
       "train.optimizer.groups[0]"},
  };
  for (const BadMessage& bad : table) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(StepCallFromProto(Request(bad.text)).status(),
                IsFieldError(bad.code, bad.field));
  }
}

// A repeated number with another body is another request.
TEST(StepMessagesTest, DigestCoversTheOptimizer) {
  const std::vector<std::string> bodies{
      "adam {}",
      "adamw {}",
      "adam { beta1: 0.5 }",
      "adam { beta2: 0.5 }",
      "adam { eps: 1 }",
      "adam { amsgrad: true }",
      "adam {} groups { patterns: 'a' adam {} }",
      "adam {} groups { patterns: 'b' adam {} }",
      "adam {} groups { patterns: 'a' adam { lr: 1 } }",
  };
  std::set<std::string> digests;
  for (const std::string& body : bodies) {
    for (const char* clip_norm : {"", "clip_norm: 1", "clip_norm: 2"}) {
      for (const char* action : {"update", "train"}) {
        const std::string text = std::string(action) + " { optimizer { " +
                                 body + " } " + clip_norm + " }";
        digests.insert(DigestOf(Request(text)));
      }
    }
  }
  EXPECT_EQ(digests.size(), bodies.size() * 3 * 2);
}

TEST(StepMessagesTest, ResultHasTheNormWhereThereIsOne) {
  StepAnswer answer{.number = StepNumber{3}};
  EXPECT_FALSE(ToProto(DeploymentId{"d"}, answer).has_gradient_norm());
  answer.gradient_norm = 0;
  const pb::StepResult result = ToProto(DeploymentId{"d"}, answer);
  EXPECT_TRUE(result.has_gradient_norm());
  EXPECT_EQ(result.gradient_norm(), 0);
}

TEST(StepMessagesTest, ResultTellsWhereTheTimeWent) {
  const pb::StepResult result = ToProto(
      DeploymentId{"d"},
      {.number = StepNumber{3},
       .seconds = 1,
       .timing = {.run = 0.5, .collectives = 0.25, .commit_call = 0.125}});
  EXPECT_EQ(result.duration_seconds(), 1);
  EXPECT_EQ(result.timing().run_seconds(), 0.5);
  EXPECT_EQ(result.timing().collective_seconds(), 0.25);
  EXPECT_EQ(result.timing().commit_call_seconds(), 0.125);
}

}  // namespace
}  // namespace shardplane
