// The requests in docs/examples, read as grpcurl's server would and planned:
// what a user copies must work.
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/compile.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/convert/module.h"
#include "proto/convert/plan.h"
#include "proto/convert/program.h"
#include "proto/convert/types.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class ExampleTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto status = google::protobuf::util::JsonStringToMessage(
        ReadFile("docs/examples/plan.json"), &request_);
    ASSERT_TRUE(status.ok()) << status;
  }

  pb::CreateDeploymentRequest request_;
};

TEST_F(ExampleTest, IsADryRunOfASmallModule) {
  EXPECT_TRUE(request_.validate_only());
  const auto module =
      FromProto(request_.deployment().module(), "deployment.module");
  ASSERT_TRUE(module.ok()) << module.status();
  EXPECT_EQ(module->modules().size(), 4u);
  // No data goes up: every parameter says how its first values are made.
  for (const Parameter& parameter : module->parameters()) {
    EXPECT_TRUE(parameter.initializer.has_value()) << parameter.fqn;
  }
  // No graphs either: the core writes them from the types.
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(GraphOf(*module, i).ok()) << GraphOf(*module, i).status();
  }
}

TEST_F(ExampleTest, PlansToOneAllReduceForward) {
  const pb::Deployment& deployment = request_.deployment();
  const auto module = FromProto(deployment.module(), "deployment.module");
  const auto mesh = FromProto(deployment.mesh(), "deployment.mesh");
  const auto plan = FromProto(deployment.plan(), "deployment.plan");
  const auto signature = FromProto(request_.signature(), "signature");
  ASSERT_TRUE(module.ok()) << module.status();
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(signature.ok()) << signature.status();
  const auto resolved = ResolvePlan(*module, *mesh, *plan, {});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->assignments.size(), 2u);
  EXPECT_TRUE(resolved->diagnostics.empty());
  const auto compiled = Compile(*module, *mesh, *resolved, *signature, {});
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const std::vector<int> rank0{0};
  const auto forward = Collectives(compiled->program, Phase::kForward, rank0);
  ASSERT_EQ(forward.size(), 1u);
  EXPECT_EQ(forward[0].kind, RedistributeKind::kAllReduce);
  EXPECT_EQ(CountedBytes(forward[0]), 32 * 10 * 4);
  // The program itself goes to the workers unchanged.
  const auto sent = FromProto(ToProto(compiled->program), "body");
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_TRUE(*sent == compiled->program);
  EXPECT_EQ(Digest(*sent), Digest(compiled->program));
  EXPECT_TRUE(Validate(*sent).ok()) << Validate(*sent);
}

}  // namespace
}  // namespace shardplane
