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
absl::StatusOr<StepCall> FromProto(const pb::StepRequest& request) {
  return StepCallFromProto(request, DigestOf(request));
}
std::string Train(const std::string& fields) {
  return "train { program: 'deployments/d/programs/p' " + fields + " }";
}

TEST(StepMessagesTest, TrainHasItsClipNorm) {
  const auto call =
      FromProto(Request(Train("optimizer { adam {} } clip_norm: 0.5")));
  ASSERT_THAT(call, IsOk());
  const auto& train = std::get<TrainAction>(call->action);
  EXPECT_EQ(train.clip_norm, 0.5);
  EXPECT_EQ(train.optimizer, OptimizerOptions{AdamOptions()});
  const auto without = FromProto(Request(Train("")));
  ASSERT_THAT(without, IsOk());
  EXPECT_EQ(std::get<TrainAction>(without->action).clip_norm, std::nullopt);
}

TEST(StepMessagesTest, UpdateHasItsClipNorm) {
  const auto call = FromProto(
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
    EXPECT_THAT(FromProto(Request(bad.text)).status(),
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

// Whatever a request says is in its digest, but for the id and the epoch, which
// a repeated call may have learned anew.
TEST(StepMessagesTest, DigestCoversEveryField) {
  pb::StepRequest request = Request("");
  const std::string plain = DigestOf(request);
  const google::protobuf::Descriptor& type = *request.GetDescriptor();
  const google::protobuf::Reflection& reflection = *request.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *type.field(i);
    pb::StepRequest changed = request;
    using Cpp = google::protobuf::FieldDescriptor;
    if (field.cpp_type() == Cpp::CPPTYPE_MESSAGE) {
      reflection.MutableMessage(&changed, &field);
    } else if (field.cpp_type() == Cpp::CPPTYPE_UINT64) {
      reflection.SetUInt64(&changed, &field, 77);
    } else {
      ASSERT_EQ(field.cpp_type(), Cpp::CPPTYPE_STRING) << field.name();
      reflection.SetString(&changed, &field, "other");
    }
    const bool ignored =
        field.name() == "request_id" || field.name() == "epoch";
    EXPECT_EQ(DigestOf(changed) == plain, ignored) << field.name();
  }
}

TEST(StepMessagesTest, DigestCoversTheTensors) {
  std::set<std::string> digests;
  for (const size_t size : {0, 1, 1000, 5000}) {
    for (const char fill : {'a', 'b'}) {
      pb::StepRequest request = Request(Train("inputs { upload: 'x' }"));
      request.mutable_train()->mutable_inputs(0)->set_inline_(
          std::string(size, fill));
      digests.insert(DigestOf(request));
      *request.mutable_train()->add_targets() = request.train().inputs(0);
      digests.insert(DigestOf(request));
    }
  }
  EXPECT_EQ(digests.size(), 14u);  // two fills of nothing are one
}

TEST(StepMessagesTest, TensorsOfARequestThatIsMovedAreNotCopied) {
  pb::StepRequest request =
      Request(Train("inputs { type { dtype: DTYPE_INT8 shape: 1000 } }"));
  request.mutable_train()->mutable_inputs(0)->set_inline_(
      std::string(1000, 'x'));
  const char* const bytes = request.train().inputs(0).inline_().data();
  const auto call = StepCallFromProto(std::move(request), "");
  ASSERT_THAT(call, IsOk());
  const auto& train = std::get<TrainAction>(call->action);
  EXPECT_EQ(std::get<HostTensor>(train.inputs[0]).bytes.data(), bytes);
}

TEST(StepMessagesTest, ResultHasTheNormWhereThereIsOne) {
  StepAnswer answer{.number = StepNumber{3}};
  EXPECT_FALSE(ToProto(DeploymentId{"d"}, answer).has_gradient_norm());
  answer.gradient_norm = 0;
  const pb::StepResult result = ToProto(DeploymentId{"d"}, answer);
  EXPECT_TRUE(result.has_gradient_norm());
  EXPECT_EQ(result.gradient_norm(), 0);
}

TEST(StepMessagesTest, ResultHasThePeaksByRank) {
  const pb::StepResult result = ToProto(
      DeploymentId{"d"}, {.number = StepNumber{3}, .peak_run_bytes = {7, 5}});
  ASSERT_EQ(result.peak_run_bytes_size(), 2);
  EXPECT_EQ(result.peak_run_bytes(1), 5);
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

TEST(StepMessagesTest, ResultHasTimelines) {
  const InstructionSummary wait{
      .kind = SpanKind::kWait, .name = "wait", .started = 4};
  const InstructionSummary sum{.kind = SpanKind::kCollective,
                               .name = "all_reduce[tp]",
                               .module = "net",
                               .bytes = 8};
  const pb::StepResult result = ToProto(
      DeploymentId{"d"},
      {.timelines = {{.begin_unix = 5,
                      .spans = {{{6, 7, 9}, wait}, {{7, 16, 1}, sum}}}}});
  ASSERT_EQ(result.timelines_size(), 1);
  const pb::Timeline& timeline = result.timelines(0);
  EXPECT_EQ(timeline.begin_unix_nanos(), 5);
  ASSERT_EQ(timeline.spans_size(), 2);
  EXPECT_EQ(timeline.spans(0).kind(), pb::Timeline::KIND_WAIT);
  EXPECT_EQ(timeline.spans(0).instruction(), 6);
  EXPECT_EQ(timeline.spans(0).begin_nanos(), 7);
  EXPECT_EQ(timeline.spans(0).duration_nanos(), 9);
  EXPECT_EQ(timeline.spans(0).started(), 4);
  EXPECT_EQ(timeline.spans(1).kind(), pb::Timeline::KIND_COLLECTIVE);
  EXPECT_EQ(timeline.spans(1).name(), "all_reduce[tp]");
  EXPECT_EQ(timeline.spans(1).module(), "net");
  EXPECT_EQ(timeline.spans(1).bytes(), 8);
  EXPECT_FALSE(timeline.spans(1).has_started());
}

}  // namespace
}  // namespace shardplane
