#include "client/shardctl/manifest.h"

#include "client/shardctl/spec_diff.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::HasSubstr;

TEST(ManifestTest, ARequest) {
  const auto all = ParseManifests(
      "deployment_id: mlp\ndeployment: {mesh: {dims: [{name: tp, size: 2}]}}\n"
      "signature: {loss: {reduction: REDUCTION_SUM}}\n");
  ASSERT_THAT(all, IsOk());
  EXPECT_EQ(NameOf(all->at(0)), "deployments/mlp");
  EXPECT_TRUE(
      std::get<pb::CreateDeploymentRequest>(all->at(0)).has_signature());
}

// What `get -o yaml` shows is what `apply` takes.
TEST(ManifestTest, AResourceWithoutWhatIsOutputOnly) {
  const auto all = ParseManifests(
      "name: deployments/mlp\nuid: u\netag: e\nstate: STATE_READY\n"
      "lastStep: 7\nworkers: [workers/a]\nseed: 3\n"
      "mesh: {dims: [{name: tp, size: 2}]}\n");
  ASSERT_THAT(all, IsOk());
  const auto& request = std::get<pb::CreateDeploymentRequest>(all->at(0));
  EXPECT_EQ(request.deployment_id(), "mlp");
  EXPECT_EQ(request.deployment().ShortDebugString(),
            "mesh { dims { name: \"tp\" size: 2 } } seed: 3");
}

TEST(ManifestTest, ModulesInBothForms) {
  const auto all = ParseManifests(
      "module_id: m\nmodule: {module: {modules: [{type: T}]}}\n---\n"
      "name: modules/n\nuid: u\nmodule: {modules: [{type: T}]}\n");
  ASSERT_THAT(all, IsOk());
  EXPECT_EQ(NameOf(all->at(0)), "modules/m");
  EXPECT_EQ(NameOf(all->at(1)), "modules/n");
}

TEST(ManifestTest, SomethingElse) {
  EXPECT_THAT(ParseManifests("mesh: {}\n---\nfoo: 1\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("document 2: expected \"deployment\"")));
  EXPECT_THAT(ParseManifests("deployment: {mseh: 1}\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mseh")));
}

pb::Module ModuleOf(const char* yaml) {
  pb::Module module;
  EXPECT_THAT(ParseMessage(ParseDocuments(yaml)->at(0), &module), IsOk());
  return module;
}

constexpr char kShort[] =
    "modules: [{type: S}, {fqn: up, type: L, attributes: {n: {intValue: 2}}}]";
// The same as a coordinator shows it.
constexpr char kWhole[] = R"(
modules:
  - {type: S, graph: {nodes: [{name: x}]}}
  - {fqn: up, type: L, attributes: {n: {intValue: 2}, m: {intValue: 3}}}
parameters:
  - {fqn: up.weight, meta: true, initializer: {zeros: {}}}
)";

pb::Deployment DeploymentOf(const char* module) {
  pb::Deployment deployment;
  deployment.set_name("deployments/d");
  *deployment.mutable_module() = ModuleOf(module);
  return deployment;
}

TEST(SpecDiffTest, WhatTheFileLeavesOutIsNoDifference) {
  const pb::Deployment running = DeploymentOf(kWhole);
  EXPECT_EQ(DeploymentDiff(running, {}, DeploymentOf(kShort)), "");
  EXPECT_EQ(DeploymentDiff(running, {}, running), "");
}

// As the coordinator shows a module whose weight and bias lie in files.
constexpr char kStored[] = R"(
modules:
  - {type: S}
  - {fqn: up, type: L}
parameters:
  - {fqn: up.weight, meta: true,
     initializer: {files: {path: one, names: [up.weight]}}}
  - {fqn: up.bias, meta: true,
     initializer: {files: {path: two, names: [up.bias]}}}
)";

std::string DiffFromStored(const std::string& parameters) {
  return DeploymentDiff(
      DeploymentOf(kStored), {},
      DeploymentOf(
          absl::StrCat("modules: [{type: S}, {fqn: up, type: L}]\n", parameters)
              .c_str()));
}

TEST(SpecDiffTest, FilesOfAModuleAreThoseOfItsParameters) {
  constexpr char kBias[] =
      "parameters: [{fqn: up.weight, meta: true}, {fqn: up.bias, meta: true, "
      "initializer: {files: {path: two}}}]";
  EXPECT_EQ(DiffFromStored(absl::StrCat("weights: one\n", kBias)), "");
  EXPECT_THAT(DiffFromStored(absl::StrCat("weights: three\n", kBias)),
              HasSubstr("-  weights: one\n+  weights: three\n"));
}

TEST(SpecDiffTest, WhatItSaysIs) {
  const std::string other =
      "modules: [{type: S}, {fqn: up, type: L, attributes: {n: {intValue: "
      "5}}}]";
  EXPECT_THAT(
      DeploymentDiff(DeploymentOf(kWhole), {}, DeploymentOf(other.c_str())),
      HasSubstr("-          intValue: \"2\"\n+          intValue: \"5\"\n"));
  pb::Deployment planned;
  planned.set_seed(4);
  EXPECT_THAT(
      DeploymentDiff(DeploymentOf(kWhole), planned, DeploymentOf(kShort)),
      HasSubstr("+seed: \"4\""));
  EXPECT_THAT(DeploymentDiff(DeploymentOf(kWhole), {},
                             DeploymentOf("modules: [{type: S}]")),
              HasSubstr("-    - fqn: up"));
}

}  // namespace
}  // namespace shardplane
