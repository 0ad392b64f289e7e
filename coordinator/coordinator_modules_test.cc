// Named modules, and what can be read back of programs and steps.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/coordinator.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/messages.h"
#include "coordinator/mlp_example.h"
#include "coordinator/module_messages.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/module.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class CoordinatorModulesTest : public CoordinatorTest {
 protected:
  static CreateModuleCall MlpCall(std::optional<ModuleId> id) {
    CreateModuleCall call{.id = std::move(id)};
    call.spec.module = std::make_shared<const GraphModule>(SequentialMlp());
    return call;
  }
  // Of a deployment made from modules/mlp, which need not be there.
  static DeploymentSpec NamedSpec(int ranks) {
    DeploymentSpec spec = MlpSpec(ranks);
    spec.module = GraphModule();
    spec.module_id = ModuleId{"mlp"};
    return spec;
  }
};

TEST_F(CoordinatorModulesTest, DeploymentsAreMadeFromANamedModule) {
  AddWorkers(2);
  ASSERT_THAT(coordinator_->CreateModule(MlpCall(ModuleId{"mlp"})), IsOk());
  const auto dry = coordinator_->CreateDeployment(
      {.spec = NamedSpec(4), .validate_only = true}, {});
  ASSERT_THAT(dry, IsOk());
  EXPECT_THAT(dry->report->assignments, SizeIs(2));
  const auto info = coordinator_->CreateDeployment({.spec = NamedSpec(2)}, {});
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->spec->module, SequentialMlp());
  EXPECT_THAT(UploadAll(info->id), IsOk());
  // Its copy stays when the module goes.
  EXPECT_THAT(coordinator_->DeleteModule(ModuleId{"mlp"}, "", false), IsOk());
  EXPECT_THAT(coordinator_->MaterializeDeployment(info->id, {}, {}), IsOk());
  const auto again = coordinator_->GetDeployment(info->id);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->spec->module_id, ModuleId{"mlp"});
  EXPECT_EQ(again->spec->module, SequentialMlp());
}

TEST_F(CoordinatorModulesTest, UnknownModuleNamesItsField) {
  AddWorkers(1);
  EXPECT_THAT(coordinator_->CreateDeployment({.spec = NamedSpec(1)}, {}),
              AllOf(StatusIs(absl::StatusCode::kNotFound,
                             HasSubstr("got: modules/mlp")),
                    HasMetadata("resource", "modules/mlp"),
                    HasMetadata("field", "deployment.module_name")));
  EXPECT_THAT(FreeWorkers(), SizeIs(1));
  EXPECT_THAT(coordinator_->ListDeployments(), IsEmpty());
}

TEST_F(CoordinatorModulesTest, DryRunKeepsNothing) {
  CreateModuleCall call = MlpCall(ModuleId{"mlp"});
  call.validate_only = true;
  const auto dry = coordinator_->CreateModule(call);
  ASSERT_THAT(dry, IsOk());
  EXPECT_EQ(dry->uid, "");
  EXPECT_EQ(dry->parameter_count, 346);
  EXPECT_THAT(coordinator_->ListModules(), IsEmpty());
  ASSERT_THAT(coordinator_->CreateModule(MlpCall(ModuleId{"mlp"})), IsOk());
  EXPECT_THAT(coordinator_->CreateModule(call), HasReason("MODULE_EXISTS"));
}

TEST_F(CoordinatorModulesTest, NamesAreMadeUp) {
  const auto made = coordinator_->CreateModule(MlpCall(std::nullopt));
  ASSERT_THAT(made, IsOk());
  EXPECT_THAT(made->id.value, StartsWith("m"));
  EXPECT_THAT(coordinator_->GetModule(made->id), IsOk());
  EXPECT_THAT(coordinator_->ListModules(), SizeIs(1));
}

// --------------------------------------------------------------- messages

pb::CreateModuleRequest ModuleRequest() {
  pb::CreateModuleRequest request;
  *request.mutable_module()->mutable_module() = ToProto(SequentialMlp());
  (*request.mutable_module()->mutable_labels())["team"] = "a";
  request.set_module_id("mlp");
  return request;
}

TEST(ModuleMessagesTest, ComeBack) {
  const auto call = CreateModuleCallFromProto(ModuleRequest());
  ASSERT_THAT(call, IsOk());
  EXPECT_EQ(*call->spec.module, SequentialMlp());
  ModuleRecord record = DescribeModule(*call->id, call->spec);
  record.uid = "u1";
  record.create_time = absl::FromUnixMillis(1500);
  const pb::ModuleResource full = ToProto(record, ModuleView::kFull);
  EXPECT_EQ(full.name(), "modules/mlp");
  EXPECT_EQ(full.uid(), "u1");
  EXPECT_EQ(full.etag(), record.etag());
  EXPECT_EQ(full.create_time().nanos(), 500'000'000);
  EXPECT_EQ(full.update_time().seconds(), 1);
  EXPECT_EQ(full.labels().at("team"), "a");
  EXPECT_EQ(full.parameter_count(), 346);
  EXPECT_EQ(full.parameter_bytes(), 4 * 346);
  EXPECT_EQ(full.module().SerializeAsString(),
            ToProto(SequentialMlp()).SerializeAsString());
  EXPECT_FALSE(ToProto(record, ModuleView::kWithoutBody).has_module());
}

TEST(ModuleMessagesTest, BadOnesNameTheirField) {
  pb::CreateModuleRequest request = ModuleRequest();
  request.set_module_id("No Good");
  EXPECT_THAT(CreateModuleCallFromProto(request),
              HasMetadata("field", "module_id"));
  request = ModuleRequest();
  request.mutable_module()->mutable_module()->clear_modules();
  EXPECT_THAT(CreateModuleCallFromProto(request),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument, testing::_),
                    HasMetadata("field", "module.module.modules")));
  request.mutable_module()->clear_module();
  EXPECT_THAT(
      CreateModuleCallFromProto(request),
      AllOf(HasReason("FIELD_MISSING"), HasMetadata("field", "module.module")));
}

TEST(ModuleMessagesTest, DeploymentHasAModuleOrAName) {
  pb::CreateDeploymentRequest request;
  request.mutable_deployment()->mutable_mesh()->add_dims()->set_name("tp");
  request.mutable_deployment()->mutable_mesh()->mutable_dims(0)->set_size(1);
  EXPECT_THAT(CreateCallFromProto(request),
              AllOf(HasReason("FIELD_MISSING"),
                    HasMetadata("field", "deployment.module")));
  request.mutable_deployment()->set_module_name("modules/mlp");
  const auto call = CreateCallFromProto(request);
  ASSERT_THAT(call, IsOk());
  EXPECT_EQ(call->spec.module_id, ModuleId{"mlp"});
  *request.mutable_deployment()->mutable_module() = ToProto(SequentialMlp());
  EXPECT_THAT(CreateCallFromProto(request),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("got: both")),
                    HasMetadata("field", "deployment.module_name")));
  request.mutable_deployment()->clear_module();
  request.mutable_deployment()->set_module_name("mlp");
  EXPECT_THAT(CreateCallFromProto(request),
              AllOf(HasReason("RESOURCE_NAME_INVALID"),
                    HasMetadata("field", "deployment.module_name")));
}

// --------------------------------------------------------- read back

TEST_F(CoordinatorModulesTest, ProgramsAreListedByName) {
  AddWorkers(1);
  Deploy(1);
  ASSERT_THAT(
      coordinator_->CreateProgram(id_, MlpSignature(WithLoss::kNo), false, {}),
      IsOk());
  const auto programs = coordinator_->ListPrograms(id_);
  ASSERT_THAT(programs, IsOk());
  ASSERT_THAT(*programs, SizeIs(2));
  EXPECT_LT((*programs)[0]->id, (*programs)[1]->id);
  EXPECT_FALSE(
      ToProto(*(*programs)[0], ProgramView::kWithoutReport).has_report());
  EXPECT_TRUE(ToProto(*(*programs)[0], ProgramView::kFull).has_report());
  EXPECT_THAT(coordinator_->ListPrograms(DeploymentId{"no"}),
              HasReason("DEPLOYMENT_NOT_FOUND"));
}

TEST_F(CoordinatorModulesTest, StepsAreReadBack) {
  AddWorkers(1);
  Deploy(1);
  EXPECT_THAT(coordinator_->GetStep(id_, StepNumber{1}),
              AllOf(HasReason("STEP_NOT_FOUND"),
                    HasMetadata("resource", ResourceName(id_) + "/steps/1")));
  const auto first = Train(1, "one");
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(Train(2, "two"), IsOk());
  EXPECT_THAT(coordinator_->GetStep(id_, StepNumber{1}), IsOkAndHolds(*first));
  EXPECT_THAT(coordinator_->GetStep(DeploymentId{"no"}, StepNumber{1}),
              HasReason("DEPLOYMENT_NOT_FOUND"));
}

}  // namespace
}  // namespace shardplane
