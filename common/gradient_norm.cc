#include "common/gradient_norm.h"

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "common/placement.h"
#include "common/tensor_type.h"

namespace shardplane {

std::vector<CollectiveRecord> NormCollectives(const DeviceMesh& mesh) {
  std::vector<CollectiveRecord> records;
  for (int dim = 0; dim < mesh.ndim(); ++dim) {
    if (mesh.dim_size(dim) == 1) continue;
    records.push_back(
        {RedistributeKind::kAllReduce, dim, DType::kFloat64, 1, 1});
  }
  return records;
}

bool CountsInNorm(const DTensorSpec& spec, absl::Span<const int> coordinate) {
  for (size_t dim = 0; dim < spec.placements.size(); ++dim) {
    if (IsReplicate(spec.placements[dim]) && coordinate[dim] != 0) return false;
  }
  return true;
}

double ClipScale(double norm, double clip_norm) {
  const double scale = clip_norm / (norm + 1e-6);
  return scale > 1 ? 1 : scale;  // NaN stays
}

}  // namespace shardplane
