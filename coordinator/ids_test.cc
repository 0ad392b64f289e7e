#include "coordinator/ids.h"

#include <string>

#include "coordinator/digest.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(IdsTest, NamesComeBack) {
  const DeploymentId deployment{"d1"};
  EXPECT_EQ(ResourceName(WorkerId{"w0"}), "workers/w0");
  EXPECT_EQ(ResourceName(deployment, StepNumber{3}), "deployments/d1/steps/3");
  EXPECT_THAT(ParseWorkerName("workers/w0", "name"),
              IsOkAndHolds(WorkerId{"w0"}));
  EXPECT_THAT(ParseDeploymentName(ResourceName(deployment), "name"),
              IsOkAndHolds(deployment));
  const auto program =
      ParseProgramName(ResourceName(deployment, ProgramId{"p1"}), "name");
  ASSERT_THAT(program, IsOk());
  EXPECT_EQ(program->deployment, deployment);
  EXPECT_EQ(program->program, ProgramId{"p1"});
}

TEST(IdsTest, NamesOfModulesAndStepsComeBack) {
  EXPECT_THAT(ParseModuleName(ResourceName(ModuleId{"mlp"}), "name"),
              IsOkAndHolds(ModuleId{"mlp"}));
  EXPECT_THAT(ParseModuleName("deployments/mlp", "name"),
              HasReason("RESOURCE_NAME_INVALID"));
  const auto step = ParseStepName("deployments/d1/steps/3", "name");
  ASSERT_THAT(step, IsOk());
  EXPECT_EQ(step->deployment, DeploymentId{"d1"});
  EXPECT_EQ(step->number, StepNumber{3});
  for (const std::string number :
       {"", "x", "03", "+3", "-1", " 3", "3 ", "18446744073709551616"}) {
    EXPECT_THAT(
        ParseStepName("deployments/d1/steps/" + number, "name"),
        AllOf(HasReason("RESOURCE_NAME_INVALID"), HasMetadata("field", "name")))
        << number;
  }
}

TEST(IdsTest, OtherFormsNameTheirField) {
  for (const std::string name : {"", "d1", "workers/d1", "deployments/",
                                 "deployments/d1/", "deployments/d1/x/y"}) {
    EXPECT_THAT(ParseDeploymentName(name, "header.deployment"),
                AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("got: \"" + name + "\"")),
                      HasReason("RESOURCE_NAME_INVALID"),
                      HasMetadata("field", "header.deployment")))
        << name;
  }
  EXPECT_THAT(ParseProgramName("deployments/d/programs", "name"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("programs/{program}")));
}

TEST(IdsTest, ResourceIdsAsAip122HasThem) {
  for (const char* good : {"a", "d7f3", "my-mlp", "a1-2"}) {
    EXPECT_TRUE(IsResourceId(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("1a"), std::string("A"), std::string("a-"),
        std::string("a_b"), std::string("a/b"), std::string(64, 'a')}) {
    EXPECT_FALSE(IsResourceId(bad)) << bad;
  }
}

TEST(DigestTest, TellsTextsApart) {
  EXPECT_EQ(Digest("abc"), Digest("abc"));
  EXPECT_EQ(Digest("abc").size(), 32u);
  EXPECT_NE(Digest("abc"), Digest("abd"));
  EXPECT_NE(Digest(std::string("a\0", 2)), Digest("a"));
  EXPECT_NE(Digest(std::string(16, '\0')), Digest(std::string(8, '\0')));
}

TEST(DigestTest, PartsAreOneText) {
  Digester digester;
  std::string text;
  for (const size_t size : {0, 3, 1000, 7}) {
    text += std::string(size, 'x');
    digester.Add(std::string(size, 'x'));
    EXPECT_EQ(digester.Finish(), Digest(text));
  }
}

}  // namespace
}  // namespace shardplane
