// Mesh dims that each take a part of the batch, beside the plan's.
#ifndef SHARDPLANE_COMMON_DATA_PARALLEL_H_
#define SHARDPLANE_COMMON_DATA_PARALLEL_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"

namespace shardplane {

// Along such a mesh dim, dim 0 of each tensor input and target is cut.
enum class DataParallelKind {
  kReplicate = 1,  // parameters are whole; their gradients are all-reduced
  kFullyShard,     // parameters are cut, gathered before they are used; their
                   // gradients are reduce-scattered
};

struct DataParallel {
  std::string mesh_dim;
  DataParallelKind kind = DataParallelKind::kReplicate;
  // Of kFullyShard: FQN of a parameter -> the tensor dim that is cut, negative
  // ones from the end. Others on dim 0.
  absl::btree_map<std::string, int> shard_dims = {};
  friend bool operator==(const DataParallel&, const DataParallel&) = default;
};

// By mesh dim; nullopt: not data parallel.
using DataParallelDims = std::vector<std::optional<DataParallelKind>>;

// InvalidArgument: a name that the mesh has not (UNKNOWN_MESH_DIM), one twice
// (DATA_PARALLEL_TWICE).
absl::StatusOr<DataParallelDims> ResolveDataParallel(
    const DeviceMesh& mesh, absl::Span<const DataParallel> data_parallel);

// By index of parameter, then by mesh dim, the tensor dim that kFullyShard
// cuts; all names of one tensor alike. Empty: 0 everywhere.
using ShardDims = std::vector<std::vector<int>>;

// Of items that ResolveDataParallel takes. InvalidArgument: dims for a mesh dim
// that does not cut, or a dim that the tensor has not (SHARD_DIM); no parameter
// of this FQN (UNKNOWN_PARAMETER); two dims for one tensor (SHARD_DIM_TWICE).
absl::StatusOr<ShardDims> ResolveShardDims(
    const GraphModule& module, const DeviceMesh& mesh,
    absl::Span<const DataParallel> data_parallel);

// How a parameter is stored that the plan wants to lie as `wanted`: along the
// mesh dims of kFullyShard it is cut too, inside of the plan's cuts, on the dim
// of `shard_dims`, by mesh dim; empty: on dim 0.
//   [R, S(1)] -> [S(0), S(1)]      [R, S(0)] -> [S(0)#2, S(0)#1]
// A tensor without dims stays whole.
DTensorSpec FullySharded(const DTensorSpec& wanted, const TensorType& type,
                         const DataParallelDims& dims,
                         absl::Span<const int> shard_dims = {});

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_DATA_PARALLEL_H_
