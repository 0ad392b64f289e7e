#include "common/flops.h"

#include <utility>
#include <vector>

#include "common/tensor_spec.h"

namespace shardplane {

void FlopCount::Add(std::vector<Cut> cuts, const Flops& whole) {
  std::erase_if(cuts, [](const Cut& cut) { return cut.mesh_dims.empty(); });
  Flops& sum = by_cuts_[std::move(cuts)];
  sum.forward += whole.forward;
  sum.backward += whole.backward;
}

Flops FlopCount::On(const DeviceMesh& mesh,
                    absl::Span<const int> coordinate) const {
  Flops result;
  for (const auto& [cuts, whole] : by_cuts_) {
    Flops part = whole;
    for (const Cut& cut : cuts) {
      if (cut.size == 0) continue;  // then there are no flops
      // Whole flops are a multiple of every factor: nothing is lost.
      const int64_t local =
          LocalExtent(cut.size, cut.mesh_dims, mesh, coordinate).size;
      part.forward = part.forward / cut.size * local;
      part.backward = part.backward / cut.size * local;
    }
    result.forward += part.forward;
    result.backward += part.backward;
  }
  return result;
}

}  // namespace shardplane
