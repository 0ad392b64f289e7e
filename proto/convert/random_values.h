// Random values of the core that are valid by themselves, for round trips.
#ifndef SHARDPLANE_PROTO_CONVERT_RANDOM_VALUES_H_
#define SHARDPLANE_PROTO_CONVERT_RANDOM_VALUES_H_

#include <random>
#include <string>
#include <vector>

#include "common/compile.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"
#include "common/sharded_program.h"

namespace shardplane {

class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : random_(seed) {}

  std::mt19937_64& engine() { return random_; }

  int Below(int end) { return static_cast<int>(random_() % end); }
  bool Coin() { return Below(2) == 0; }
  double Number();
  std::string Word();  // not empty

  DType AnyDType() { return static_cast<DType>(1 + Below(10)); }
  TensorType FloatType();
  TensorType AnyTensorType();
  Blocks AnyBlocks();
  Placement AnyPlacement(int lowest_dim);
  DTensorSpec AnySpec(int mesh_ndim);
  DeviceMesh AnyMesh();
  Initializer AnyInitializer();

  Argument AnyArgument(int depth = 0);
  Graph AnyGraph();  // any nodes; references need not resolve
  // A tree that GraphModule::Create takes, without graphs for most modules.
  GraphModule AnyModule();

  ParallelStyle AnyStyle();
  ParallelizePlan AnyPlan(int depth = 0);

  Signature AnySignature();
  // Ids in range; no sense as a program.
  ShardedProgram AnyProgram();

 private:
  LayoutChange AnyChange();
  PrepareModuleInput AnyInput();
  PrepareModuleOutput AnyOutput();
  ProgramArgument AnyProgramArgument(int values, int mesh_ndim, int depth);
  std::vector<int> Ids(int low, int end);
  Op AnyOp(int values, int mesh_ndim);
  Instruction AnyInstruction(int values, int segments, int mesh_ndim);

  std::mt19937_64 random_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_RANDOM_VALUES_H_
