// The cheapest way of a value from one spec to another. Used by
// program_builder.cc.
#ifndef SHARDPLANE_COMMON_CHEAPEST_REDISTRIBUTION_H_
#define SHARDPLANE_COMMON_CHEAPEST_REDISTRIBUTION_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/device_mesh.h"
#include "common/link_costs.h"
#include "common/redistribute.h"
#include "common/tensor_type.h"

namespace shardplane {

// Microseconds of these steps, which begin at `from`, on a rank that has the
// largest parts; with those of the gradient's way back if there is one.
double CostUs(const std::vector<RedistributeStep>& steps,
              const DTensorSpec& from, const TensorType& type,
              const DeviceMesh& mesh, const LinkCosts& costs,
              bool has_gradient);

// As PlanRedistribute, whose way is taken unless another one is cheaper:
//   [P, P] -> [R, R] of much: scattered along the first dim, reduced along the
//   second, and gathered again, which is one all_reduce less in bytes
// Errors are PlanRedistribute's.
absl::StatusOr<std::vector<RedistributeStep>> CheapestRedistribution(
    const DTensorSpec& from, const DTensorSpec& to, const TensorType& type,
    const DeviceMesh& mesh, const LinkCosts& costs, bool has_gradient);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_CHEAPEST_REDISTRIBUTION_H_
