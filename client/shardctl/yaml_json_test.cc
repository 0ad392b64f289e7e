#include "client/shardctl/yaml_json.h"

#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "shardplane/v1/coordinator.pb.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kYaml[] = R"(name: deployments/on
labels:
  1: "2"
  a: yes
mesh:
  dims:
    - {name: tp, size: 2}
strict: true
src_data_rank: 0
seed: 12345678901234567890
plan:
  entries:
    - pattern: 0
      value: {style: {colwise: {}}}
)";

absl::StatusOr<pb::Deployment> Parsed(const std::string& text) {
  const auto documents = ParseDocuments(text);
  if (!documents.ok()) return documents.status();
  pb::Deployment deployment;
  if (absl::Status status = ParseMessage(documents->at(0), &deployment);
      !status.ok()) {
    return status;
  }
  return deployment;
}

TEST(YamlJsonTest, ScalarsFitTheirFields) {
  const auto deployment = Parsed(kYaml);
  ASSERT_THAT(deployment, IsOk());
  EXPECT_EQ(deployment->name(), "deployments/on");
  EXPECT_EQ(deployment->labels().at("1"), "2");
  EXPECT_EQ(deployment->labels().at("a"), "yes");
  EXPECT_EQ(deployment->mesh().dims(0).size(), 2);
  EXPECT_TRUE(deployment->strict());
  EXPECT_EQ(deployment->seed(), 12345678901234567890u);
  EXPECT_EQ(deployment->plan().entries(0).pattern(), "0");
  EXPECT_TRUE(deployment->plan().entries(0).value().style().has_colwise());
}

TEST(YamlJsonTest, WhatIsWrittenIsReadAgain) {
  const auto deployment = Parsed(kYaml);
  ASSERT_THAT(deployment, IsOk());
  for (const std::string& text :
       {YamlText(*deployment), JsonText(*deployment)}) {
    const auto again = Parsed(text);
    ASSERT_THAT(again, IsOk()) << text;
    EXPECT_TRUE(
        google::protobuf::util::MessageDifferencer::Equals(*again, *deployment))
        << text;
  }
}

// Others read it as YAML: what looks like another type is quoted.
TEST(YamlJsonTest, StringsStayStrings) {
  nlohmann::ordered_json json = {{"a", "1"},    {"b", "true"}, {"c", ""},
                                 {"d", "null"}, {"e", "x: y"}, {"f", 1}};
  EXPECT_EQ(YamlText(json),
            "a: \"1\"\nb: \"true\"\nc: \"\"\nd: \"null\"\ne: \"x: y\"\nf: 1\n");
}

TEST(YamlJsonTest, MapsAreSortedByTheirKeys) {
  pb::Deployment deployment;
  for (const char* key : {"c", "a", "b"}) {
    (*deployment.mutable_labels())[key] = "x";
  }
  EXPECT_EQ(YamlText(deployment), "labels:\n  a: x\n  b: x\n  c: x\n");
  pb::Node node;
  (*node.mutable_kwargs())["z"].set_int_value(1);
  (*node.mutable_kwargs())["y"].set_int_value(2);
  EXPECT_THAT(YamlText(node), HasSubstr("y:\n    intValue: \"2\"\n  z:"));
}

TEST(YamlJsonTest, SeveralDocuments) {
  const auto documents = ParseDocuments("a: 1\n---\n---\nb: 2\n");
  ASSERT_THAT(documents, IsOk());
  EXPECT_THAT(*documents, SizeIs(2));
}

TEST(YamlJsonTest, AnErrorHasItsLine) {
  EXPECT_THAT(
      ParseDocuments("a: 1\nb: [\n"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at line 3")));
}

TEST(YamlJsonTest, AFieldThatThereIsNot) {
  EXPECT_THAT(Parsed("mseh: {}\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mseh")));
}

}  // namespace
}  // namespace shardplane
