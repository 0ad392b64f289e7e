// Trains a small model: train HOST:PORT, the address of a coordinator that has
// two free workers. Prints the loss of each step.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "client/error_info.h"
#include "client/inline_tensor.h"
#include "client/train_stream.h"
#include "shardplane/v1/coordinator.pb.h"

namespace {

namespace pb = ::shardplane::v1;
using ::shardplane::Client;
using ::shardplane::InlineTensor;
using ::shardplane::ValuesOf;

constexpr uint64_t kSteps = 20;
constexpr uint64_t kAhead = 4;  // steps that are sent before the first answer

// Two Linear layers, cut over two workers; the loss is the mean square error.
// The workers make the parameters' first values, from a seed.
constexpr char kDeployment[] = R"json({
  "deployment": {
    "module": {"modules": [
      {"fqn": "", "type": "torch.nn.Sequential"},
      {"fqn": "up", "type": "torch.nn.Linear", "attributes":
        {"in_features": {"int_value": 10}, "out_features": {"int_value": 16},
         "dtype": {"dtype": "DTYPE_FLOAT64"}}},
      {"fqn": "act", "type": "torch.nn.ReLU"},
      {"fqn": "down", "type": "torch.nn.Linear", "attributes":
        {"in_features": {"int_value": 16}, "out_features": {"int_value": 10},
         "dtype": {"dtype": "DTYPE_FLOAT64"}}}
    ]},
    "mesh": {"dims": [{"name": "tp", "size": 2}]},
    "plan": {"entries": [
      {"pattern": "up", "value": {"style": {"colwise": {}}}},
      {"pattern": "down", "value": {"style": {"rowwise": {}}}}
    ]}
  },
  "signature": {
    "inputs": [{"type": {"dtype": "DTYPE_FLOAT64", "shape": [8, 10]}}],
    "targets": [{"type": {"dtype": "DTYPE_FLOAT64", "shape": [8, 10]}}],
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

// A batch of any numbers: scale * sin(0), scale * sin(1), …
pb::Tensor Sines(double scale) {
  std::vector<double> values(80);
  for (int i = 0; i < 80; ++i) {
    values[i] = scale * std::sin(i);
  }
  return InlineTensor<double>({8, 10}, values);
}

pb::StepRequest StepOf(const pb::Deployment& deployment, uint64_t number) {
  pb::StepRequest request;
  request.set_deployment(deployment.name());
  request.set_step(number);
  request.mutable_train()->set_program(deployment.programs(0));
  *request.mutable_train()->add_inputs() = Sines(1);
  *request.mutable_train()->add_targets() = Sines(-1);
  request.mutable_train()->mutable_optimizer()->mutable_sgd()->set_lr(0.5);
  return request;
}

absl::Status Print(const pb::StepResult& result) {
  const auto loss = ValuesOf<double>(result.loss());
  if (!loss.ok()) return loss.status();
  std::printf("step %d: loss %.12f\n", static_cast<int>(result.number()),
              loss->at(0));
  return absl::OkStatus();
}

absl::Status Train(Client& client, const pb::Deployment& deployment) {
  // One step, and its answer.
  const auto first = client.Step(StepOf(deployment, 1));
  if (!first.ok()) return first.status();
  absl::Status status = Print(*first);
  // Many steps: some are under way while the next ones are written.
  const auto stream = client.Train();
  uint64_t written = 1;
  for (uint64_t read = 1; status.ok() && read < kSteps; ++read) {
    while (status.ok() && written < kSteps && written < read + kAhead) {
      status = stream->Write(StepOf(deployment, ++written));
    }
    const auto result = stream->Read();
    if (!result.ok()) return result.status();
    status.Update(Print(**result));
  }
  status.Update(stream->Finish());
  return status;
}

absl::Status Run(const char* address) {
  const auto client = Client::Connect(address);
  if (!client.ok()) return client.status();
  const auto request = shardplane::ParseCreateDeployment(kDeployment);
  if (!request.ok()) return request.status();
  const auto deployment = (*client)->CreateDeployment(*request);
  if (!deployment.ok()) return deployment.status();
  pb::MaterializeDeploymentRequest materialize;
  materialize.set_name(deployment->name());
  absl::Status status = (*client)->MaterializeDeployment(materialize).status();
  if (status.ok()) {
    status = Train(**client, *deployment);
  }
  pb::DeleteDeploymentRequest remove;
  remove.set_name(deployment->name());
  status.Update((*client)->DeleteDeployment(remove));
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: train HOST:PORT\n");
    return 2;
  }
  const absl::Status status = Run(argv[1]);
  if (!status.ok()) {
    std::fprintf(stderr, "%s (%s)\n", status.ToString().c_str(),
                 shardplane::ErrorInfoOf(status).reason().c_str());
    return 1;
  }
  return 0;
}
