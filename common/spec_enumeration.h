// For tests: all ways to lay a tensor out on small meshes.
#ifndef SHARDPLANE_COMMON_SPEC_ENUMERATION_H_
#define SHARDPLANE_COMMON_SPEC_ENUMERATION_H_

#include <vector>

#include "common/device_mesh.h"
#include "common/tensor_spec.h"

namespace shardplane {

// Meshes of one to three dims, of sizes 1 to 4.
std::vector<DeviceMesh> SmallMeshes();

// All specs of Replicate, Partial(sum) and Shard placements for a tensor of
// that rank, with every cut order.
std::vector<DTensorSpec> AllSpecs(const DeviceMesh& mesh, int tensor_rank);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SPEC_ENUMERATION_H_
