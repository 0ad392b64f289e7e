#include "common/data_parallel.h"

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/redistribute.h"

namespace shardplane {

absl::StatusOr<DataParallelDims> ResolveDataParallel(
    const DeviceMesh& mesh, absl::Span<const DataParallel> data_parallel) {
  DataParallelDims dims(mesh.ndim());
  for (const DataParallel& item : data_parallel) {
    const auto error = [&](absl::string_view reason, absl::string_view what) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("data_parallel: ", what, "; got: \"",
                                    item.mesh_dim, "\""),
                       {.reason = std::string(reason),
                        .metadata = {{"field", "deployment.data_parallel"},
                                     {"mesh_dim", item.mesh_dim},
                                     {"mesh", mesh.ToString()}}});
    };
    const int mesh_dim = mesh.FindDim(item.mesh_dim);
    if (mesh_dim == -1) {
      return error("UNKNOWN_MESH_DIM",
                   absl::StrCat("must name dims of mesh ", mesh.ToString()));
    }
    if (dims[mesh_dim].has_value()) {
      return error("DATA_PARALLEL_TWICE", "names a mesh dim once");
    }
    dims[mesh_dim] = item.kind;
  }
  return dims;
}

DTensorSpec FullySharded(const DTensorSpec& wanted, const TensorType& type,
                         const DataParallelDims& dims) {
  DTensorSpec spec = wanted;
  if (type.shape.empty()) return spec;
  for (int m = 0; m < static_cast<int>(dims.size()); ++m) {
    if (dims[m] != DataParallelKind::kFullyShard) continue;
    spec = WithPlacement(spec, m, Shard{0});
  }
  return spec;
}

}  // namespace shardplane
