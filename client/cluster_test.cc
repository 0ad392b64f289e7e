// The client against a real coordinator and workers, of which it needs four
// that are free: tests/cluster/test_cpp_client.py starts them and runs this,
// with the address in SHARDPLANE_COORDINATOR.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/client.h"
#include "client/error_info.h"
#include "client/inline_tensor.h"
#include "client/train_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// y = relu(x a') b', cut over two ranks; the loss is the sum of y.
constexpr char kCreate[] = R"json({
  "deployment": {
    "module": {
      "modules": [
        {"fqn": "", "type": "torch.nn.Sequential"},
        {"fqn": "a", "type": "torch.nn.Linear"},
        {"fqn": "act", "type": "torch.nn.ReLU"},
        {"fqn": "b", "type": "torch.nn.Linear"}
      ],
      "parameters": [
        {"fqn": "a.weight", "requires_grad": true,
         "type": {"dtype": "DTYPE_FLOAT64", "shape": [$0, 2]}},
        {"fqn": "b.weight", "requires_grad": true,
         "type": {"dtype": "DTYPE_FLOAT64", "shape": [2, $0]}}
      ]
    },
    "mesh": {"dims": [{"name": "tp", "size": 2}]},
    "plan": {"entries": [
      {"pattern": "a", "value": {"style": {"colwise": {}}}},
      {"pattern": "b", "value": {"style": {"rowwise": {}}}}
    ]},
    "src_data_rank": 0
  },
  "signature": {
    "inputs": [{"type": {"dtype": "DTYPE_FLOAT64", "shape": [1, 2]}}],
    "loss": {"reduction": "REDUCTION_SUM"}
  }
})json";

// Small numbers, all different.
std::vector<double> Numbers(int64_t count) {
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(0.01 * static_cast<double>(i % 1000) - 3);
  }
  return values;
}

class ClusterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* address = std::getenv("SHARDPLANE_COORDINATOR");
    ASSERT_NE(address, nullptr) << "expected the address of a coordinator";
    auto client = Client::Connect(address);
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  void TearDown() override {
    for (const std::string& name : names_) {
      pb::DeleteDeploymentRequest request;
      request.set_name(name);
      request.set_allow_missing(true);
      EXPECT_THAT(client_->DeleteDeployment(request), IsOk());
    }
  }

  static pb::CreateDeploymentRequest CreateRequest(int64_t width) {
    return *ParseCreateDeployment(
        absl::StrReplaceAll(kCreate, {{"$0", absl::StrCat(width)}}));
  }
  absl::Status UploadParameter(const pb::Deployment& deployment,
                               const char* fqn, std::vector<int64_t> shape,
                               const std::vector<double>& values) {
    pb::UploadTensorRequest::Header header;
    header.set_deployment(deployment.name());
    header.set_epoch(deployment.epoch());
    header.set_parameter(fqn);
    *header.mutable_type() = TypeOf<double>(shape);
    return client_->Upload(header, BytesOf(absl::MakeConstSpan(values)));
  }
  // A deployment that is ready.
  pb::Deployment Deploy(int64_t width = 4) {
    const auto created = client_->CreateDeployment(CreateRequest(width));
    EXPECT_THAT(created, IsOk());
    names_.push_back(created->name());
    EXPECT_THAT(
        UploadParameter(*created, "a.weight", {width, 2}, Numbers(2 * width)),
        IsOk());
    EXPECT_THAT(
        UploadParameter(*created, "b.weight", {2, width}, Numbers(2 * width)),
        IsOk());
    pb::MaterializeDeploymentRequest request;
    request.set_name(created->name());
    const auto ready = client_->MaterializeDeployment(request);
    EXPECT_THAT(ready, IsOk());
    EXPECT_EQ(ready->state(), pb::Deployment::STATE_READY);
    return *ready;
  }
  static pb::Tensor InputOf(uint64_t number) {
    return InlineTensor<double>({1, 2}, {-1.0 - number % 3, 0.5 - number % 2});
  }
  static pb::StepRequest StepOf(const pb::Deployment& deployment,
                                uint64_t number) {
    pb::StepRequest request;
    request.set_deployment(deployment.name());
    request.set_step(number);
    request.mutable_train()->set_program(deployment.programs(0));
    *request.mutable_train()->add_inputs() = InputOf(number);
    request.mutable_train()->mutable_optimizer()->mutable_sgd()->set_lr(0.01);
    return request;
  }
  absl::StatusOr<std::vector<double>> Download(const pb::Deployment& deployment,
                                               const char* fqn, int rank = -1) {
    pb::DownloadTensorRequest request;
    request.set_deployment(deployment.name());
    request.mutable_tensor()->set_parameter(fqn);
    if (rank >= 0) {
      request.set_rank(rank);
    }
    const auto tensor = client_->Download(request);
    return tensor.ok() ? ValuesOf<double>(tensor->bytes) : tensor.status();
  }
  uint64_t LastStep(const pb::Deployment& deployment) {
    const auto now = client_->GetDeployment(deployment.name());
    EXPECT_THAT(now, IsOk());
    return now.ok() ? now->last_step() : 0;
  }

  std::unique_ptr<Client> client_;
  std::vector<std::string> names_;
};

TEST_F(ClusterTest, PlansAnExampleOfTheDocuments) {
  std::ifstream file("docs/examples/plan.json");
  std::stringstream text;
  text << file.rdbuf();
  const auto request = ParseCreateDeployment(text.str());
  ASSERT_THAT(request, IsOk());
  const auto planned = client_->CreateDeployment(*request);
  ASSERT_THAT(planned, IsOk());
  EXPECT_THAT(planned->report().assignments(), SizeIs(2));
}

TEST_F(ClusterTest, AnErrorNamesItsField) {
  pb::CreateDeploymentRequest request = CreateRequest(4);
  request.mutable_deployment()->mutable_mesh()->mutable_dims(0)->set_size(0);
  const auto created = client_->CreateDeployment(request);
  EXPECT_THAT(created,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: ")));
  const google::rpc::ErrorInfo info = ErrorInfoOf(created.status());
  EXPECT_EQ(info.domain(), "shardplane");
  EXPECT_THAT(info.metadata().at("field"), HasSubstr("deployment.mesh"));
}

TEST_F(ClusterTest, TensorsOfManyChunksGoUpAndComeBack) {
  constexpr int64_t kWidth = 150'000;  // 2.3 MiB a parameter
  const pb::Deployment deployment = Deploy(kWidth);
  const std::vector<double> whole = Numbers(2 * kWidth);
  EXPECT_TRUE(*Download(deployment, "a.weight") == whole);
  // Colwise: rows of the weight, in the order of the ranks.
  const std::vector<double> second(whole.begin() + kWidth, whole.end());
  EXPECT_TRUE(*Download(deployment, "a.weight", 1) == second);
}

TEST_F(ClusterTest, ForwardByHand) {
  const auto created = client_->CreateDeployment(CreateRequest(2));
  ASSERT_THAT(created, IsOk());
  names_.push_back(created->name());
  ASSERT_THAT(UploadParameter(*created, "a.weight", {2, 2}, {1, 0, 0, -1}),
              IsOk());
  ASSERT_THAT(UploadParameter(*created, "b.weight", {2, 2}, {1, 2, 3, 4}),
              IsOk());
  pb::MaterializeDeploymentRequest materialize;
  materialize.set_name(created->name());
  ASSERT_THAT(client_->MaterializeDeployment(materialize), IsOk());
  pb::ForwardRequest request;
  request.set_deployment(created->name());
  request.set_program(created->programs(0));
  *request.add_inputs() = InlineTensor<double>({1, 2}, {5, -7});
  const auto answer = client_->Forward(request);
  ASSERT_THAT(answer, IsOk());
  // relu([5, 7]) times [[1, 3], [2, 4]].
  EXPECT_THAT(ValuesOf<double>(absl::string_view(answer->outputs(0).inline_())),
              IsOkAndHolds(ElementsAre(19, 43)));
}

TEST_F(ClusterTest, ProgramsAreAddedAndRead) {
  const pb::Deployment deployment = Deploy();
  pb::CreateProgramRequest request;
  request.set_parent(deployment.name());
  *request.mutable_signature() = CreateRequest(4).signature();
  request.mutable_signature()->mutable_inputs(0)->mutable_type()->set_shape(0,
                                                                            3);
  const auto created = client_->CreateProgram(request);
  ASSERT_THAT(created, IsOk());
  EXPECT_NE(created->name(), deployment.programs(0));
  const auto read = client_->GetProgram(created->name());
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->uid(), created->uid());
}

TEST_F(ClusterTest, AStepThatIsSentAgainIsAnsweredAndNotRepeated) {
  const pb::Deployment deployment = Deploy();
  const auto first = client_->Step(StepOf(deployment, 1));
  ASSERT_THAT(first, IsOk());
  const auto weight = Download(deployment, "b.weight");
  const auto again = client_->Step(StepOf(deployment, 1));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(*Download(deployment, "b.weight"), *weight);
  const auto read = client_->GetStep(first->name());
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->loss().inline_(), first->loss().inline_());
}

TEST_F(ClusterTest, AStepOutOfTurnIsAborted) {
  const pb::Deployment deployment = Deploy();
  const auto result = client_->Step(StepOf(deployment, 3));
  EXPECT_THAT(result,
              AllOf(StatusIs(absl::StatusCode::kAborted, HasSubstr("got: ")),
                    HasReason("STEP_OUT_OF_TURN"),
                    HasMetadata("expected", HasSubstr("1"))));
}

TEST_F(ClusterTest, TrainDoesWhatStepsDo) {
  constexpr uint64_t kSteps = 50;
  const pb::Deployment one = Deploy();
  const pb::Deployment other = Deploy();
  const std::unique_ptr<TrainStream> stream = client_->Train();
  for (uint64_t n = 1; n <= kSteps; ++n) {
    ASSERT_THAT(stream->Write(StepOf(other, n)), IsOk());
  }
  for (uint64_t n = 1; n <= kSteps; ++n) {
    const auto step = client_->Step(StepOf(one, n));
    ASSERT_THAT(step, IsOk());
    const auto result = stream->Read();
    ASSERT_THAT(result, IsOk());
    ASSERT_TRUE(result->has_value());
    EXPECT_EQ((*result)->number(), n);
    EXPECT_EQ((*result)->name(), absl::StrCat(other.name(), "/steps/", n));
    EXPECT_EQ((*result)->loss().inline_(), step->loss().inline_()) << n;
  }
  EXPECT_THAT(stream->Finish(), IsOk());
  EXPECT_EQ(*Download(one, "a.weight"), *Download(other, "a.weight"));
  EXPECT_EQ(LastStep(other), kSteps);
}

TEST_F(ClusterTest, AfterAStepThatFailsAnotherStreamGoesOn) {
  const pb::Deployment deployment = Deploy();
  std::unique_ptr<TrainStream> stream = client_->Train();
  for (uint64_t n = 1; n <= 6; ++n) {
    pb::StepRequest step = StepOf(deployment, n);
    if (n == 4) {
      *step.mutable_train()->mutable_inputs(0) =
          InlineTensor<double>({1, 3}, {1, 2, 3});
    }
    const absl::Status status = stream->Write(step);
    EXPECT_TRUE(n > 4 || status.ok()) << status;  // the failure may be known
  }
  for (uint64_t n = 1; n <= 3; ++n) {
    ASSERT_THAT(stream->Read(), IsOk());
  }
  EXPECT_THAT(stream->Read(), AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("got: ")),
                                    HasMetadata("step", "4")));
  EXPECT_EQ(LastStep(deployment), 3u);
  stream = client_->Train();
  ASSERT_THAT(stream->Write(StepOf(deployment, 4)), IsOk());
  EXPECT_THAT(stream->Finish(), IsOk());
  EXPECT_EQ(LastStep(deployment), 4u);
}

}  // namespace
}  // namespace shardplane
