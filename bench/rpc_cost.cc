#include "bench/rpc_cost.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/inline_tensor.h"
#include "client/train_stream.h"
#include "grpcpp/grpcpp.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr char kDeployment[] = R"json({
  "deployment": {
    "module": {"modules": [
      {"fqn": "", "type": "torch.nn.Sequential"},
      {"fqn": "0", "type": "torch.nn.Linear", "attributes":
        {"in_features": {"int_value": 10}, "out_features": {"int_value": 16}}},
      {"fqn": "1", "type": "torch.nn.ReLU"},
      {"fqn": "2", "type": "torch.nn.Linear", "attributes":
        {"in_features": {"int_value": 16}, "out_features": {"int_value": 10}}}
    ]},
    "mesh": {"dims": [{"name": "tp", "size": $0}]},
    "plan": {"entries": [
      {"pattern": "0", "value": {"style": {"colwise": {}}}},
      {"pattern": "2", "value": {"style": {"rowwise": {}}}}
    ]}
  },
  "signature": {
    "inputs": [{"type": {"dtype": "DTYPE_FLOAT32", "shape": [8, 10]}}],
    "targets": [{"type": {"dtype": "DTYPE_FLOAT32", "shape": [8, 10]}}],
    "loss": {"graph": {"nodes": [
      {"op": "OP_PLACEHOLDER", "name": "output"},
      {"op": "OP_PLACEHOLDER", "name": "target"},
      {"op": "OP_CALL_FUNCTION", "name": "error", "target": "aten.sub.Tensor",
       "args": [{"node": "output"}, {"node": "target"}]},
      {"op": "OP_CALL_FUNCTION", "name": "square", "target": "aten.mul.Tensor",
       "args": [{"node": "error"}, {"node": "error"}]},
      {"op": "OP_CALL_FUNCTION", "name": "mean", "target": "aten.mean.default",
       "args": [{"node": "square"}]},
      {"op": "OP_OUTPUT", "name": "loss", "args": [{"node": "mean"}]}
    ]}}
  }
})json";

double MicrosecondsSince(absl::Time start) {
  return absl::ToDoubleMicroseconds(absl::Now() - start);
}

pb::Tensor Batch(float scale) {
  std::vector<float> values(80);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * std::sin(static_cast<float>(i));
  }
  return InlineTensor<float>({8, 10}, values);
}

pb::StepRequest StepOf(const pb::Deployment& deployment) {
  pb::StepRequest step;
  step.set_deployment(deployment.name());
  step.set_epoch(deployment.epoch());
  step.mutable_train()->set_program(deployment.programs(0));
  *step.mutable_train()->add_inputs() = Batch(1);
  *step.mutable_train()->add_targets() = Batch(-1);
  step.mutable_train()->mutable_optimizer()->mutable_sgd()->set_lr(0.01);
  return step;
}

// Microseconds.
double WorkersTime(const pb::StepResult& result) {
  return 1e6 * (result.timing().run_seconds() +
                result.timing().commit_call_seconds());
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepSide>> StepSide::Create(
    const std::string& address, int workers) {
  auto client = Client::Connect(address);
  if (!client.ok()) {
    return client.status();
  }
  auto request = ParseCreateDeployment(
      absl::StrReplaceAll(kDeployment, {{"$0", absl::StrCat(workers)}}));
  if (!request.ok()) {
    return request.status();
  }
  const auto created = (*client)->CreateDeployment(*request);
  if (!created.ok()) {
    return created.status();
  }
  std::unique_ptr<StepSide> side(new StepSide(*std::move(client), *created));
  pb::MaterializeDeploymentRequest materialize;
  materialize.set_name(created->name());
  const auto ready = side->client_->MaterializeDeployment(materialize);
  if (!ready.ok()) {
    return ready.status();
  }
  return side;
}

StepSide::StepSide(std::unique_ptr<Client> client, pb::Deployment deployment)
    : client_(std::move(client)),
      deployment_(std::move(deployment)),
      step_(StepOf(deployment_)) {}

StepSide::~StepSide() {
  pb::DeleteDeploymentRequest request;
  request.set_name(deployment_.name());
  client_->DeleteDeployment(request).IgnoreError();
}

pb::StepRequest StepSide::NextStep() const {
  pb::StepRequest step = step_;
  step.set_step(last_step_ + 1);
  return step;
}

absl::Status StepSide::Steps(int count, StepTimes* times) {
  for (int i = 0; i < count; ++i) {
    pb::StepRequest step = NextStep();
    const absl::Time start = absl::Now();
    const auto result = client_->Step(std::move(step));
    times->call.push_back(MicrosecondsSince(start));
    if (!result.ok()) {
      return result.status();
    }
    last_step_ = result->number();
    times->coordinator.push_back(1e6 * result->duration_seconds());
    times->workers.push_back(WorkersTime(*result));
  }
  return absl::OkStatus();
}

absl::Status StepSide::Train(int count, int ahead, std::vector<double>* times) {
  const uint64_t end = last_step_ + count;
  uint64_t written = last_step_;
  const absl::Time start = absl::Now();
  const std::unique_ptr<TrainStream> stream = client_->Train();
  while (last_step_ < end) {
    for (; written < end && written < last_step_ + ahead; ++written) {
      pb::StepRequest step = step_;
      step.set_step(written + 1);
      if (absl::Status status = stream->Write(std::move(step)); !status.ok()) {
        return status;
      }
    }
    const auto result = stream->Read();
    if (!result.ok()) {
      return result.status();
    }
    last_step_ = (*result)->number();
  }
  if (absl::Status status = stream->Finish(); !status.ok()) {
    return status;
  }
  times->push_back(MicrosecondsSince(start) / count);
  return absl::OkStatus();
}

EchoSide::EchoSide(const std::string& address, pb::StepRequest step)
    : step_([&] {
        step.set_request_id("00000000-0000-4000-8000-000000000000");
        return std::move(step);
      }()),
      stub_(pb::ShardingCoordinator::NewStub(
          grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

absl::Status EchoSide::Calls(int count, std::vector<double>* times) {
  for (int i = 0; i < count; ++i) {
    pb::StepResult result;
    const absl::Time start = absl::Now();
    grpc::ClientContext context;
    const grpc::Status status = stub_->Step(&context, step_, &result);
    times->push_back(MicrosecondsSince(start));
    if (!status.ok()) {
      return FromGrpcStatus(status);
    }
  }
  return absl::OkStatus();
}

absl::Status EchoSide::Messages(int count, std::vector<double>* times) {
  pb::TrainRequest request;
  *request.add_steps() = step_;
  pb::TrainResponse response;
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  for (int i = 0; i < count; ++i) {
    const absl::Time start = absl::Now();
    if (!stream->Write(request) || !stream->Read(&response)) {
      return FromGrpcStatus(stream->Finish());
    }
    times->push_back(MicrosecondsSince(start));
  }
  stream->WritesDone();
  return FromGrpcStatus(stream->Finish());
}

absl::Status EchoSide::Stream(int count, int ahead,
                              std::vector<double>* times) {
  pb::TrainRequest request;
  *request.add_steps() = step_;
  pb::TrainResponse response;
  const absl::Time start = absl::Now();
  grpc::ClientContext context;
  const auto stream = stub_->Train(&context);
  int written = 0;
  for (int read = 0; read < count; ++read) {
    for (; written < count && written < read + ahead; ++written) {
      stream->Write(request);  // if it fails, so does the next Read
    }
    if (!stream->Read(&response)) {
      return FromGrpcStatus(stream->Finish());
    }
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  times->push_back(MicrosecondsSince(start) / count);
  return FromGrpcStatus(status);
}

}  // namespace shardplane
