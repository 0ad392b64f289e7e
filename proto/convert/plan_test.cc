#include "proto/convert/plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/convert/random_values.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<ParallelizePlan> Plan(const std::string& text) {
  return FromProto(ParseText<pb::ParallelizePlan>(text), "deployment.plan");
}

// The only style of a plan of one entry.
template <typename Style>
Style OnlyStyle(const std::string& style) {
  const auto plan =
      Plan(absl::StrCat("entries { value { style { ", style, " } } }"));
  EXPECT_TRUE(plan.ok()) << plan.status();
  return std::get<Style>(
      std::get<std::vector<ParallelStyle>>(plan->entries.at(0).value)
          .at(0)
          .kind);
}

TEST(PlanTest, RandomPlansComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    const ParallelizePlan plan = random.AnyPlan();
    const auto back = FromProto(ToProto(plan), "plan");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == plan);
  }
}

TEST(PlanTest, AbsentLayoutsTakeTheDefaultsOfPyTorch) {
  EXPECT_EQ(OnlyStyle<ColwiseParallel>("colwise {}"),
            (ColwiseParallel{Replicate{}, Shard{-1}}));
  EXPECT_EQ(OnlyStyle<RowwiseParallel>("rowwise {}"),
            (RowwiseParallel{Shard{-1}, Replicate{}}));
  EXPECT_EQ(
      OnlyStyle<ColwiseParallel>("colwise { output_layouts { replicate {} } }"),
      (ColwiseParallel{Replicate{}, Replicate{}}));
}

TEST(PlanTest, NoneInAListOfLayoutsStaysNone) {
  const auto style = OnlyStyle<PrepareModuleInput>(
      "prepare_module_input {"
      "  input_layouts { placement { shard {} } } input_layouts {}"
      "  desired_input_layouts { placement { replicate {} } }"
      "  desired_input_layouts {} }");
  EXPECT_EQ(style.inputs,
            (std::vector<LayoutChange>{{Shard{0}, Replicate{}}, {}}));
}

TEST(PlanTest, KwargsPairByKeyAndCountOnly) {
  const auto style = OnlyStyle<PrepareModuleInput>(
      "prepare_module_input {"
      "  input_kwarg_layouts { key: 'x' value { placement { shard {} } } }"
      "  desired_input_kwarg_layouts { key: 'y' value { placement { replicate "
      "{} } } } }");
  EXPECT_EQ(style.kwargs.at("x"), (LayoutChange{Shard{0}, std::nullopt}));
  EXPECT_EQ(style.kwargs.at("y"), (LayoutChange{std::nullopt, Replicate{}}));
}

TEST(PlanTest, DesiredInputsWithoutAClaimChangeNothing) {
  EXPECT_EQ(OnlyStyle<PrepareModuleInput>(
                "prepare_module_input { desired_input_layouts { placement { "
                "replicate {} } } desired_input_kwarg_layouts { key: 'x' } }"),
            PrepareModuleInput{});
}

TEST(PlanTest, OrderIsTheDictsOrder) {
  const auto plan = Plan(
      "entries { pattern: 'b' value { none {} } }"
      "entries { pattern: 'a' value { styles { } } }"
      "entries { pattern: '' value { plan { entries { pattern: 'c' value { "
      "none {} } } } } }");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->entries[0].pattern, "b");
  EXPECT_EQ(plan->entries[1].pattern, "a");
  EXPECT_EQ(
      std::get<ParallelizePlan>(plan->entries[2].value).entries[0].pattern,
      "c");
}

class BadPlanTest : public testing::TestWithParam<BadMessage> {};

TEST_P(BadPlanTest, IsRefusedWithItsField) {
  EXPECT_THAT(Plan(GetParam().text).status(),
              IsFieldError(GetParam().code,
                           absl::StrCat("deployment.plan.", GetParam().field)));
}

std::string Styled(const std::string& style) {
  return absl::StrCat(
      "entries { value { none {} } } entries { value { style { ", style,
      " } } }");
}

INSTANTIATE_TEST_SUITE_P(
    All, BadPlanTest,
    testing::Values(
        BadMessage{"NoValue", "entries { pattern: 'a' }", "entries[0].value"},
        BadMessage{"NoStyle", Styled(""), "entries[1].value.style"},
        BadMessage{"NoStyleInAList",
                   "entries { value { styles { styles { colwise {} } styles { "
                   "} } } }",
                   "entries[0].value.styles.styles[1]"},
        BadMessage{"EmptyUnknown", Styled("unknown: ''"),
                   "entries[1].value.style.unknown"},
        BadMessage{"LayoutWithoutKind", Styled("colwise { output_layouts {} }"),
                   "entries[1].value.style.colwise.output_layouts"},
        BadMessage{"ShardOutOfRange",
                   Styled("rowwise { input_layouts { shard { dim: 99 } } }"),
                   "entries[1].value.style.rowwise.input_layouts.shard.dim"},
        BadMessage{"InputsWithoutDesired",
                   Styled("prepare_module_input { input_layouts {} }"),
                   "entries[1].value.style.prepare_module_input."
                   "desired_input_layouts"},
        BadMessage{"InputLengthsDiffer",
                   Styled("prepare_module_input { input_layouts {} "
                          "input_layouts {} desired_input_layouts {} }"),
                   "entries[1].value.style.prepare_module_input."
                   "desired_input_layouts"},
        BadMessage{"KwargCountsDiffer",
                   Styled("prepare_module_input { input_kwarg_layouts { key: "
                          "'x' } }"),
                   "entries[1].value.style.prepare_module_input."
                   "desired_input_kwarg_layouts"},
        BadMessage{"KwargWithoutKind",
                   Styled("prepare_module_input { input_kwarg_layouts { key: "
                          "'x' value { placement {} } } "
                          "desired_input_kwarg_layouts { key: 'x' } }"),
                   "entries[1].value.style.prepare_module_input."
                   "input_kwarg_layouts[\"x\"].placement"},
        BadMessage{"NoOutputs", Styled("prepare_module_output {}"),
                   "entries[1].value.style.prepare_module_output."
                   "output_layouts"},
        BadMessage{"OutputLengthsDiffer",
                   Styled("prepare_module_output { output_layouts {} }"),
                   "entries[1].value.style.prepare_module_output."
                   "desired_output_layouts"},
        BadMessage{"InputOutputWithoutOutputs",
                   Styled("prepare_module_input_output { input {} }"),
                   "entries[1].value.style.prepare_module_input_output.output."
                   "output_layouts"},
        BadMessage{"NestedDict",
                   "entries { value { plan { entries { pattern: 'x' } } } }",
                   "entries[0].value.plan.entries[0].value"}),
    [](const auto& info) { return info.param.name; });

TEST(PlanTest, DeepNestingIsRefused) {
  pb::ParallelizePlan message;
  pb::ParallelizePlan* inner = &message;
  for (int i = 1; i < kMaxPlanDepth; ++i) {
    inner = inner->add_entries()->mutable_value()->mutable_plan();
  }
  EXPECT_TRUE(FromProto(message, "plan").ok());
  inner->add_entries()->mutable_value()->mutable_plan();
  const absl::Status status = FromProto(message, "plan").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST(PlanTest, GarbageIsRefusedOrRead) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes =
        Garble(ToProto(random.AnyPlan()).SerializeAsString(), random.engine());
    pb::ParallelizePlan message;
    if (message.ParseFromString(bytes)) {
      const auto plan = FromProto(message, "plan");
      if (plan.ok()) {
        EXPECT_TRUE(*FromProto(ToProto(*plan), "plan") == *plan);
      }
    }
  }
}

TEST(PlanTest, JsonOfADictReads) {
  pb::ParallelizePlan message;
  const auto status = google::protobuf::util::JsonStringToMessage(
      R"({"entries": [
           {"pattern": "net1", "value": {"style": {"colwise": {}}}},
           {"pattern": "net2", "value": {"style": {"rowwise": {
              "outputLayouts": {"shard": {"dim": 0}}}}}},
           {"pattern": "layers.*", "value": {"plan": {"entries": [
              {"pattern": "w[12]", "value": {"none": {}}}]}}}]})",
      &message);
  ASSERT_TRUE(status.ok()) << status;
  const auto plan = FromProto(message, "plan");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->entries.size(), 3u);
}

}  // namespace
}  // namespace shardplane
