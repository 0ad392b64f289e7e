#include "coordinator/planner.h"

#include <string>
#include <vector>

#include "common/example_modules.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(PlannerTest, PlansWithoutASignature) {
  const auto planned = PlanDeployment(MlpSpec(4), std::nullopt);
  ASSERT_THAT(planned, IsOk());
  EXPECT_FALSE(planned->program.has_value());
  EXPECT_THAT(planned->report.assignments, SizeIs(2));
  EXPECT_THAT(planned->plan.parameter_specs[0], PlacementsAre("[S(0)]"));
  EXPECT_EQ(planned->report.program_text, "");
}

TEST(PlannerTest, PlansTheProgramOfASignature) {
  const auto planned = PlanDeployment(MlpSpec(4), MlpSignature(WithLoss::kSum));
  ASSERT_THAT(planned, IsOk());
  ASSERT_TRUE(planned->program.has_value());
  EXPECT_GE(planned->program->compiled.program.loss, 0);
  EXPECT_THAT(planned->report.program_text, HasSubstr("all_reduce"));
}

TEST(PlannerTest, SourceRankMustLieInThePlansMeshDim) {
  DeploymentSpec spec = MlpSpec(4);
  spec.mesh = *DeviceMesh::Create({{"dp", 8}, {"tp", 2}});
  spec.src_data_rank = 1;
  EXPECT_THAT(PlanDeployment(spec, std::nullopt), IsOk());
  spec.src_data_rank = 2;
  EXPECT_THAT(PlanDeployment(spec, std::nullopt),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             "src_data_rank: expected 0 to 1 (mesh dim \"tp\" "
                             "has size 2), got: 2"),
                    HasMetadata("field", "deployment.src_data_rank")));
}

TEST(PlannerTest, UnitsHaveNoNegativeSize) {
  DeploymentSpec spec = MlpSpec(4);
  spec.unit_bytes = -1;
  EXPECT_THAT(PlanDeployment(spec, std::nullopt),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             "unit_bytes: expected 0 or more, got: -1"),
                    HasMetadata("field", "deployment.unit_bytes")));
}

TEST(PlannerTest, ErrorsOfAPlanNameTheirField) {
  DeploymentSpec spec = MlpSpec(4);
  spec.plan = ParallelizePlan{
      {{"net1", std::vector<ParallelStyle>{{UnknownStyle{"Diagonal"}, ""}}}}};
  EXPECT_THAT(
      PlanDeployment(spec, std::nullopt),
      AllOf(StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("Diagonal")),
            HasMetadata("field", HasSubstr("deployment.plan"))));
  spec = MlpSpec(4);
  spec.data_parallel = {{"pp", DataParallelKind::kReplicate}};
  EXPECT_THAT(PlanDeployment(spec, std::nullopt),
              HasMetadata("field", "deployment.data_parallel"));
  spec = MlpSpec(4);
  spec.plan_mesh_dim = "pp";
  EXPECT_THAT(PlanDeployment(spec, std::nullopt),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pp")));
}

TEST(PlannerTest, ErrorsOfASignatureNameItsField) {
  SignatureSpec signature = MlpSignature(WithLoss::kSum);
  signature.signature.inputs[0].type.shape = {6, 11};
  EXPECT_THAT(
      PlanDeployment(MlpSpec(4), signature),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("11")),
            HasMetadata("field", HasSubstr("signature"))));
}

TEST(PlannerTest, ModuleOfASignatureHasTheSameParameters) {
  SignatureSpec signature = MlpSignature(WithLoss::kNo);
  signature.module = ModuleBuilder("torch.nn.Sequential")
                         .Linear("net1", 10, 17)
                         .Module("relu", "torch.nn.ReLU")
                         .Linear("net2", 17, 10)
                         .Build();
  EXPECT_THAT(PlanDeployment(MlpSpec(4), signature),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("with parameter \"net1.weight\" "
                                       "f32[16, 10], got: \"net1.weight\" "
                                       "f32[17, 10]")),
                    HasReason("MODULE_DIFFERS")));
}

TEST(PlannerTest, LongProgramTextIsCut) {
  DeploymentSpec spec = MlpSpec(2);
  ModuleBuilder builder("torch.nn.Sequential");
  constexpr int kLayers = 3000;
  for (int i = 0; i < kLayers; ++i) {
    builder.Linear(std::to_string(i), 10, 10);
  }
  spec.module = builder.Build();
  spec.plan = std::nullopt;
  const auto planned = PlanDeployment(spec, MlpSignature(WithLoss::kSum));
  ASSERT_THAT(planned, IsOk());
  EXPECT_LT(planned->report.program_text.size(), (1u << 20) + 300);
  EXPECT_THAT(planned->report.program_text, HasSubstr(" values in all)"));
}

}  // namespace
}  // namespace shardplane
