#include "common/data_parallel.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

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

namespace {

absl::Status ShardDimError(absl::string_view reason, const std::string& fqn,
                           const std::string& what) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("shard_dims of \"", fqn, "\": ", what),
      {.reason = std::string(reason),
       .metadata = {{"field", "deployment.data_parallel"}, {"fqn", fqn}}});
}

// The dims of one item, by canonical index.
class ShardDimReader {
 public:
  explicit ShardDimReader(const GraphModule& module) : module_(module) {}

  absl::StatusOr<std::map<int, int>> Read(const DataParallel& item) const {
    std::map<int, int> dims;
    for (const auto& [fqn, dim] : item.shard_dims) {
      if (item.kind != DataParallelKind::kFullyShard) {
        return ShardDimError("SHARD_DIM", fqn,
                             absl::StrCat("mesh dim \"", item.mesh_dim,
                                          "\" keeps parameters whole"));
      }
      const Parameter* parameter = module_.FindParameter(fqn);
      if (parameter == nullptr || parameter->buffer) {
        return ShardDimError("UNKNOWN_PARAMETER", fqn, "no such parameter");
      }
      SP_ASSIGN_OR_RETURN(const int positive, Positive(*parameter, dim));
      const auto [known, is_new] = dims.insert({IndexOf(*parameter), positive});
      if (!is_new && known->second != positive) {
        return ShardDimError("SHARD_DIM_TWICE", fqn,
                             absl::StrCat("the same tensor is cut on dim ",
                                          known->second, "; got: ", dim));
      }
    }
    return dims;
  }

  // Of the first name of the same tensor.
  int IndexOf(const Parameter& parameter) const {
    return static_cast<int>(&module_.Canonical(parameter) -
                            module_.parameters().data());
  }

 private:
  static absl::StatusOr<int> Positive(const Parameter& parameter, int dim) {
    const int ndim = static_cast<int>(parameter.type.shape.size());
    if (dim >= -ndim && dim < ndim) return dim < 0 ? dim + ndim : dim;
    return ShardDimError("SHARD_DIM", parameter.fqn,
                         absl::StrCat(ToString(parameter.type), " has ", ndim,
                                      " dims; got: ", dim));
  }

  const GraphModule& module_;
};

}  // namespace

absl::StatusOr<ShardDims> ResolveShardDims(
    const GraphModule& module, const DeviceMesh& mesh,
    absl::Span<const DataParallel> data_parallel) {
  ShardDims all;
  const ShardDimReader reader(module);
  for (const DataParallel& item : data_parallel) {
    if (item.shard_dims.empty()) continue;
    SP_ASSIGN_OR_RETURN(const auto dims, reader.Read(item));
    all.resize(module.parameters().size(), std::vector<int>(mesh.ndim(), 0));
    for (size_t i = 0; i < all.size(); ++i) {
      const auto known = dims.find(reader.IndexOf(module.parameters()[i]));
      if (known == dims.end()) continue;
      all[i][mesh.FindDim(item.mesh_dim)] = known->second;
    }
  }
  return all;
}

DTensorSpec FullySharded(const DTensorSpec& wanted, const TensorType& type,
                         const DataParallelDims& dims,
                         absl::Span<const int> shard_dims) {
  DTensorSpec spec = wanted;
  if (type.shape.empty()) return spec;
  for (int m = 0; m < static_cast<int>(dims.size()); ++m) {
    if (dims[m] != DataParallelKind::kFullyShard) continue;
    spec =
        WithPlacement(spec, m, Shard{shard_dims.empty() ? 0 : shard_dims[m]});
  }
  return spec;
}

}  // namespace shardplane
