#include "common/spec_enumeration.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace shardplane {
namespace {

// The spec itself, and the spec with each order in which its mesh dims may cut.
void AppendWithOrders(const DTensorSpec& spec, std::vector<DTensorSpec>* out) {
  out->push_back(spec);
  std::vector<int> cuts;
  for (int i = 0; i < static_cast<int>(spec.placements.size()); ++i) {
    if (ShardDim(spec.placements[i]) != -1) cuts.push_back(i);
  }
  if (cuts.size() < 2) return;
  do {
    out->push_back({spec.placements, cuts});
  } while (std::next_permutation(cuts.begin(), cuts.end()));
}

}  // namespace

std::vector<DeviceMesh> SmallMeshes() {
  const std::vector<std::vector<int>> sizes = {
      {1}, {2}, {3}, {4}, {2, 2}, {2, 3}, {4, 1}, {3, 4}, {2, 2, 2}, {2, 3, 2}};
  std::vector<DeviceMesh> meshes;
  for (const std::vector<int>& mesh_sizes : sizes) {
    std::vector<MeshDim> dims;
    for (const int size : mesh_sizes) {
      const char letter = static_cast<char>('a' + dims.size());
      dims.push_back({std::string(1, letter), size});
    }
    meshes.push_back(DeviceMesh::Create(std::move(dims)).value());
  }
  return meshes;
}

std::vector<DTensorSpec> AllSpecs(const DeviceMesh& mesh, int tensor_rank) {
  std::vector<Placement> choices = {Replicate{}, Partial{}};
  for (int dim = 0; dim < tensor_rank; ++dim) choices.push_back(Shard{dim});
  std::vector<DTensorSpec> partly = {{}};
  for (int i = 0; i < mesh.ndim(); ++i) {
    std::vector<DTensorSpec> longer;
    for (const DTensorSpec& spec : partly) {
      for (const Placement& choice : choices) {
        longer.push_back(spec);
        longer.back().placements.push_back(choice);
      }
    }
    partly = std::move(longer);
  }
  std::vector<DTensorSpec> all;
  for (const DTensorSpec& spec : partly) AppendWithOrders(spec, &all);
  return all;
}

}  // namespace shardplane
