// Small modules, plans and readers for the compiler's tests.
#ifndef SHARDPLANE_COMMON_COMPILE_FIXTURE_H_
#define SHARDPLANE_COMMON_COMPILE_FIXTURE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/compile.h"

namespace shardplane {

ModuleNode Mod(const std::string& fqn, const std::string& type);
Parameter Param(const std::string& fqn, const Shape& shape,
                bool requires_grad = true);
Argument Ref(const std::string& name);
Node Placeholder(const std::string& name);
// A call of an op ("aten.…") or else of a module.
Node Call(const std::string& name, const std::string& target,
          std::vector<Argument> args);
Node Output(Argument value);
ModuleNode Root(std::vector<Node> nodes);

// PyTorch's MLPModule: in -> hidden -> in.
GraphModule Mlp(int64_t in = 10, int64_t hidden = 16);
// in and out: two linears of one weight, their results added.
GraphModule TiedLinears();

PlanEntry Entry(const std::string& pattern, ParallelStyle style);
ParallelStyle Colwise(Placement in = Replicate{}, Placement out = Shard{-1});
ParallelStyle Rowwise(Placement in = Shard{-1}, Placement out = Replicate{});

struct Request {
  GraphModule module;
  std::vector<PlanEntry> plan;
  Shape input = {8, 10};
  bool input_grad = false;
  bool loss = true;
  std::vector<MeshDim> mesh = {{"tp", 4}};
  std::vector<DataParallel> data_parallel = {};
  bool strict = false;
  std::vector<std::string> recompute = {};
  LinkCosts link_costs = kDefaultLinkCosts;
  int64_t unit_bytes = kDefaultUnitBytes;
};
// One input x, the sum as loss.
absl::StatusOr<CompiledProgram> Compile(const Request& request);
absl::StatusOr<CompiledProgram> CompileAndPack(const Request& request,
                                               ResolvedPlan* plan);

// The instructions alone, without what frees values; an error's message.
std::string Steps(const absl::StatusOr<CompiledProgram>& compiled);
// "net1.weight [S(0)] [S(0)]; …": placements of parameters and gradients.
std::string Specs(const absl::StatusOr<CompiledProgram>& compiled);
int Count(const std::string& text, const std::string& word);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_COMPILE_FIXTURE_H_
