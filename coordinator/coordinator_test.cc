#include "coordinator/coordinator.h"

#include <optional>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/fake_worker.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// -------------------------------------------------------------- deployments

TEST_F(CoordinatorTest, FormsAGangInTheOrderOfIds) {
  AddWorkers(3);
  const auto info = Create(2);
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->phase, DeploymentPhase::kAwaitingData);
  EXPECT_THAT(info->workers, ElementsAre(WorkerId{"w0"}, WorkerId{"w1"}));
  EXPECT_EQ(cluster_.worker("w1").joined().rank, 1);
  EXPECT_EQ(cluster_.worker("w1").joined().rendezvous, "coordinator:1");
  EXPECT_THAT(FreeWorkers(), ElementsAre("w2"));
}

TEST_F(CoordinatorTest, DryRunTouchesNoWorker) {
  AddWorkers(1);
  const auto info = Create(4, /*validate_only=*/true);
  ASSERT_THAT(info, IsOk());
  EXPECT_THAT(info->report->assignments, SizeIs(2));
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kJoinGang), 0);
  EXPECT_THAT(coordinator_->ListDeployments(), IsEmpty());
}

TEST_F(CoordinatorTest, DryRunPlansTheProgramToo) {
  const auto info =
      coordinator_->CreateDeployment({.spec = MlpSpec(4),
                                      .signature = MlpSignature(WithLoss::kSum),
                                      .validate_only = true},
                                     {});
  ASSERT_THAT(info, IsOk());
  EXPECT_THAT(info->report->program_text, HasSubstr("all_reduce"));
}

TEST_F(CoordinatorTest, MeshLargerThanTheWorkersHarmsNothing) {
  AddWorkers(2);
  EXPECT_THAT(Create(3), AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("needs 3 workers")),
                               HasReason("TOO_FEW_WORKERS")));
  EXPECT_THAT(coordinator_->ListDeployments(), IsEmpty());
  Deploy(2);
  EXPECT_THAT(Train(1), IsOk());
}

TEST_F(CoordinatorTest, SourceRankOutsideTheMeshIsRefused) {
  AddWorkers(2);
  DeploymentSpec spec = MlpSpec(2);
  for (const int rank : {2, -1}) {
    spec.src_data_rank = rank;
    EXPECT_THAT(coordinator_->CreateDeployment({.spec = spec}, {}),
                AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr(absl::StrCat("got: ", rank))),
                      HasMetadata("field", "deployment.src_data_rank")));
  }
  EXPECT_THAT(FreeWorkers(), SizeIs(2));
}

TEST_F(CoordinatorTest, TakenIdIsRefused) {
  AddWorkers(2);
  const CreateCall call{.spec = MlpSpec(1), .id = DeploymentId{"mine"}};
  EXPECT_THAT(coordinator_->CreateDeployment(call, {}), IsOk());
  EXPECT_THAT(coordinator_->CreateDeployment(call, {}),
              AllOf(StatusIs(absl::StatusCode::kAlreadyExists,
                             HasSubstr("deployments/mine")),
                    HasReason("DEPLOYMENT_EXISTS")));
  EXPECT_THAT(FreeWorkers(), SizeIs(1));
}

TEST_F(CoordinatorTest, DeadWorkerIsReplacedWhenAGangForms) {
  AddWorkers(3);
  cluster_.worker("w0").Die();
  const auto info = Create(2);
  ASSERT_THAT(info, IsOk());
  EXPECT_THAT(info->workers, ElementsAre(WorkerId{"w1"}, WorkerId{"w2"}));
  EXPECT_EQ(coordinator_->GetWorker(WorkerId{"w0"})->state, WorkerState::kLost);
}

TEST_F(CoordinatorTest, EveryGangHasAnEpochOfItsOwn) {
  AddWorkers(3);
  EXPECT_EQ(Create(1)->epoch, GangEpoch{1});
  // Epoch 2 is that of a gang with w1, which cannot form.
  cluster_.worker("w1").Die();
  const auto info = Create(1);
  EXPECT_THAT(info->workers, ElementsAre(WorkerId{"w2"}));
  EXPECT_EQ(info->epoch, GangEpoch{3});
}

TEST_F(CoordinatorTest, WorkerThatCannotJoinIsNamed) {
  AddWorkers(2);
  cluster_.worker("w1").FailNext(Method::kJoinGang, Refusal());
  EXPECT_THAT(Create(2), StatusIs(absl::StatusCode::kInternal,
                                  "worker w1 (rank 1): boom"));
  EXPECT_THAT(coordinator_->ListDeployments(), IsEmpty());
  EXPECT_THAT(Create(2), IsOk());
}

TEST_F(CoordinatorTest, DeleteFreesTheWorkers) {
  AddWorkers(2);
  Deploy(2);
  EXPECT_THAT(coordinator_->DeleteDeployment({.id = id_}), IsOk());
  EXPECT_EQ(cluster_.worker("w1").calls(Method::kLeaveGang), 1);
  EXPECT_THAT(FreeWorkers(), SizeIs(2));
  EXPECT_THAT(
      coordinator_->DeleteDeployment({.id = id_}),
      AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr(ResourceName(id_))),
            HasMetadata("resource", ResourceName(id_))));
  EXPECT_THAT(
      coordinator_->DeleteDeployment({.id = id_, .allow_missing = true}),
      IsOk());
  EXPECT_THAT(Train(1), HasReason("DEPLOYMENT_NOT_FOUND"));
}

TEST_F(CoordinatorTest, DeleteWithAStaleEtagIsAborted) {
  AddWorkers(1);
  const auto created = Create(1);
  ASSERT_THAT(created, IsOk());
  ASSERT_THAT(UploadAll(created->id), IsOk());
  ASSERT_THAT(coordinator_->MaterializeDeployment(created->id, {}, {}), IsOk());
  EXPECT_THAT(coordinator_->DeleteDeployment(
                  {.id = created->id, .etag = created->etag}),
              AllOf(StatusIs(absl::StatusCode::kAborted,
                             HasSubstr("got: " + created->etag)),
                    HasReason("ETAG_MISMATCH")));
  const std::string etag = coordinator_->GetDeployment(created->id)->etag;
  EXPECT_THAT(coordinator_->DeleteDeployment({.id = created->id, .etag = etag}),
              IsOk());
}

// -------------------------------------------------------------- materialize

TEST_F(CoordinatorTest, SourceDataGoToTheSourceRankAlone) {
  AddWorkers(2);
  const auto info = Create(2);
  ASSERT_THAT(UploadAll(info->id), IsOk());
  EXPECT_THAT(cluster_.worker("w0").staged(),
              Contains("parameter:net1.weight"));
  EXPECT_THAT(cluster_.worker("w1").staged(), IsEmpty());
  EXPECT_THAT(coordinator_->MaterializeDeployment(info->id, {}, {}), IsOk());
  const MaterializeCall call = cluster_.worker("w1").materialized();
  EXPECT_THAT(call.parameters, SizeIs(4));
  EXPECT_EQ(call.parameters[0].fqn, "net1.weight");
  EXPECT_THAT(call.parameters[0].spec, PlacementsAre("[S(0)]"));
}

TEST_F(CoordinatorTest, DataThatDifferByRankGoToTheirRank) {
  AddWorkers(2);
  const auto info = Create(2);
  const TensorType type{DType::kFloat32, {16, 10}};
  EXPECT_THAT(UploadTo(info->id, "net1.weight", type, 1), IsOk());
  EXPECT_THAT(cluster_.worker("w1").staged(),
              ElementsAre("parameter:net1.weight"));
  EXPECT_THAT(cluster_.worker("w0").staged(), IsEmpty());
  EXPECT_THAT(UploadTo(info->id, "net1.weight", type, 2),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("0 to 1, got: 2")),
                    HasMetadata("field", "header.rank")));
}

TEST_F(CoordinatorTest, WithoutASourceRankEveryRankGetsTheData) {
  AddWorkers(2);
  DeploymentSpec spec = MlpSpec(2);
  spec.src_data_rank = std::nullopt;
  const auto info = coordinator_->CreateDeployment({.spec = spec}, {});
  ASSERT_THAT(UploadAll(info->id), IsOk());
  EXPECT_THAT(cluster_.worker("w0").staged(), SizeIs(4));
  EXPECT_THAT(cluster_.worker("w1").staged(), SizeIs(4));
}

TEST_F(CoordinatorTest, MissingDataAreNamed) {
  AddWorkers(2);
  const auto info = Create(2);
  ASSERT_THAT(UploadTo(info->id, "net1.weight", {DType::kFloat32, {16, 10}}),
              IsOk());
  EXPECT_THAT(coordinator_->MaterializeDeployment(info->id, {}, {}),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("\"net1.bias\" at rank 0 (3 missing)")),
                    HasReason("PARAMETER_DATA_MISSING")));
}

TEST_F(CoordinatorTest, MaterializeReportsWhatRan) {
  AddWorkers(2);
  Deploy(2);
  const auto info = coordinator_->GetDeployment(id_);
  EXPECT_THAT(info->report->collectives,
              Contains(CollectiveCount{"materialize", "scatter", 3, 1400}));
  EXPECT_THAT(coordinator_->MaterializeDeployment(id_, {}, {}),
              HasReason("DEPLOYMENT_NOT_AWAITING_DATA"));
}

TEST_F(CoordinatorTest, FailedMaterializeMayBeRepeated) {
  AddWorkers(2);
  const auto info = Create(2);
  ASSERT_THAT(UploadAll(info->id), IsOk());
  for (const char* id : {"w0", "w1"}) {
    cluster_.worker(id).FailNext(Method::kMaterialize, Refusal());
  }
  EXPECT_THAT(coordinator_->MaterializeDeployment(info->id, {}, {}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("(rank 0)")));
  EXPECT_THAT(coordinator_->MaterializeDeployment(info->id, {}, {}), IsOk());
}

struct BadUpload {
  std::string name;
  std::string parameter;
  TensorType type;
  absl::StatusCode code;
  std::string message;
  friend void PrintTo(const BadUpload& c, std::ostream* out) { *out << c.name; }
};
class BadUploadTest : public CoordinatorTest,
                      public ::testing::WithParamInterface<BadUpload> {};
TEST_P(BadUploadTest, IsRefused) {
  AddWorkers(1);
  const auto info = Create(1);
  EXPECT_THAT(UploadTo(info->id, GetParam().parameter, GetParam().type),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
  EXPECT_THAT(cluster_.worker("w0").staged(), IsEmpty());
}
INSTANTIATE_TEST_SUITE_P(
    All, BadUploadTest,
    ::testing::Values(
        BadUpload{"unknown", "net9.weight", MlpInput(),
                  absl::StatusCode::kNotFound, "got: \"net9.weight\""},
        BadUpload{"shape",
                  "net1.bias",
                  {DType::kFloat32, {17}},
                  absl::StatusCode::kInvalidArgument,
                  "expected f32[16] for \"net1.bias\", got: f32[17]"},
        BadUpload{"dtype",
                  "net1.bias",
                  {DType::kFloat64, {16}},
                  absl::StatusCode::kInvalidArgument,
                  "expected f32[16] for \"net1.bias\", got: f64[16]"}),
    CaseName<BadUpload>);

TEST_F(CoordinatorTest, ParametersOfAReadyDeploymentAreNotUploaded) {
  AddWorkers(1);
  Deploy(1);
  EXPECT_THAT(UploadTo(id_, "net1.bias", {DType::kFloat32, {16}}),
              HasReason("DEPLOYMENT_NOT_AWAITING_DATA"));
}

// -------------------------------------------------------------- programs

TEST_F(CoordinatorTest, SameSignatureGivesTheSameProgram) {
  AddWorkers(2);
  Deploy(2);
  const auto again =
      coordinator_->CreateProgram(id_, MlpSignature(WithLoss::kSum), false, {});
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ((*again)->id, program_);
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kLoadProgram), 1);
  const auto dry =
      coordinator_->CreateProgram(id_, MlpSignature(WithLoss::kNo), true, {});
  ASSERT_THAT(dry, IsOk());
  EXPECT_EQ(cluster_.worker("w0").calls(Method::kLoadProgram), 1);
  EXPECT_THAT(coordinator_->GetProgram(id_, (*dry)->id),
              HasReason("PROGRAM_NOT_FOUND"));
  EXPECT_THAT(coordinator_->GetProgram(id_, program_), IsOk());
}

TEST_F(CoordinatorTest, ModuleOfAProgramMustHaveTheSameTree) {
  AddWorkers(1);
  Deploy(1);
  SignatureSpec signature = MlpSignature(WithLoss::kSum);
  signature.module = MlpStacked(1);
  EXPECT_THAT(coordinator_->CreateProgram(id_, signature, false, {}),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr("got: \"layers\"")),
                    HasReason("MODULE_DIFFERS")));
  signature.module = SequentialMlp();
  EXPECT_THAT(coordinator_->CreateProgram(id_, signature, false, {}), IsOk());
}

// -------------------------------------------------------------- tensors

TEST_F(CoordinatorTest, DownloadsGlobalsAndShards) {
  AddWorkers(2);
  Deploy(2);
  const DownloadCall call{.deployment = id_,
                          .tensor = ParameterKey{"net1.weight"}};
  const auto global = coordinator_->Download(call, {});
  ASSERT_THAT(global, IsOk());
  EXPECT_EQ(ToString(global->tensor.type), "f32[16, 10]");
  DownloadCall shard = call;
  shard.rank = 1;
  EXPECT_EQ(ToString(coordinator_->Download(shard, {})->tensor.type),
            "f32[8, 10]");
  shard.rank = 2;
  EXPECT_THAT(
      coordinator_->Download(shard, {}),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: 2")),
            HasMetadata("field", "rank")));
}

TEST_F(CoordinatorTest, DownloadsOfTheLastCall) {
  AddWorkers(2);
  Deploy(2);
  DownloadCall call{.deployment = id_, .tensor = OutputKey{0}};
  EXPECT_THAT(coordinator_->Download(call, {}), HasReason("NOTHING_HAS_RUN"));
  ASSERT_THAT(Train(1), IsOk());
  EXPECT_THAT(coordinator_->Download(call, {}), IsOk());
  call.tensor = OutputKey{1};
  EXPECT_THAT(coordinator_->Download(call, {}),
              HasReason("INDEX_OUT_OF_RANGE"));
  call.tensor = InputGradientKey{0};
  EXPECT_THAT(coordinator_->Download(call, {}), IsOk());
  call.tensor = GradientKey{"net2.weight"};
  EXPECT_THAT(coordinator_->Download(call, {}), IsOk());
  call.tensor = GradientKey{"net9.weight"};
  EXPECT_THAT(coordinator_->Download(call, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("net9.weight")));
}

TEST_F(CoordinatorTest, NamesOfATiedWeightAreOne) {
  AddWorkers(1);
  DeploymentSpec spec = MlpSpec(1);
  spec.plan = std::nullopt;
  spec.module = Transformer(1);
  const auto info = coordinator_->CreateDeployment({.spec = spec}, {});
  ASSERT_THAT(info, IsOk());
  const TensorType type =
      spec.module.FindParameter("tok_embeddings.weight")->type;
  EXPECT_THAT(UploadTo(info->id, "output.weight", type), IsOk());
  EXPECT_THAT(cluster_.worker("w0").staged(),
              ElementsAre("parameter:tok_embeddings.weight"));
}

TEST_F(CoordinatorTest, RequestIdsOfWorkersAreNewEachTime) {
  AddWorkers(1);
  Deploy(1);
  cluster_.worker("w0").FailNext(Method::kStep, Refusal());
  EXPECT_THAT(Train(1), Not(IsOk()));
  const std::string first = cluster_.worker("w0").last_request_id();
  EXPECT_THAT(Train(1), IsOk());
  EXPECT_NE(cluster_.worker("w0").last_request_id(), first);
}

}  // namespace
}  // namespace shardplane
