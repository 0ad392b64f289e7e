// For tests: the module that most of them deploy.
#ifndef SHARDPLANE_COORDINATOR_MLP_EXAMPLE_H_
#define SHARDPLANE_COORDINATOR_MLP_EXAMPLE_H_

#include <vector>

#include "common/example_modules.h"
#include "coordinator/planner.h"

namespace shardplane {

// net1: Linear(10, 16), relu, net2: Linear(16, 10), one after the other.
inline GraphModule SequentialMlp() {
  return ModuleBuilder("torch.nn.Sequential")
      .Linear("net1", 10, 16)
      .Module("relu", "torch.nn.ReLU")
      .Linear("net2", 16, 10)
      .Build();
}

// It, on a mesh of `ranks`: net1 cut by columns, net2 by rows.
inline DeploymentSpec MlpSpec(int ranks) {
  DeploymentSpec spec;
  spec.module = SequentialMlp();
  spec.mesh = *DeviceMesh::Create({{"tp", ranks}});
  spec.plan = ParallelizePlan{
      {{"net1", std::vector<ParallelStyle>{{ColwiseParallel{}, ""}}},
       {"net2", std::vector<ParallelStyle>{{RowwiseParallel{}, ""}}}}};
  spec.src_data_rank = 0;
  return spec;
}

inline TensorType MlpInput() { return {DType::kFloat32, {6, 10}}; }

enum class WithLoss { kNo, kSum };
inline SignatureSpec MlpSignature(WithLoss loss) {
  SignatureSpec signature;
  signature.signature.inputs = {{MlpInput(), true, "input"}};
  if (loss == WithLoss::kSum) {
    signature.signature.loss = LossReduction::kSum;
  }
  return signature;
}

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_MLP_EXAMPLE_H_
