#include "common/flops.h"

#include <utility>
#include <vector>

namespace shardplane {

void FlopCount::Add(std::vector<DimCuts> cuts, const Flops& whole) {
  std::erase_if(cuts, [](const DimCuts& cut) { return cut.cuts.empty(); });
  Flops& sum = by_cuts_[std::move(cuts)];
  sum.forward += whole.forward;
  sum.backward += whole.backward;
}

Flops FlopCount::On(const DeviceMesh& mesh,
                    absl::Span<const int> coordinate) const {
  Flops result;
  for (const auto& [cuts, whole] : by_cuts_) {
    Flops part = whole;
    for (const DimCuts& cut : cuts) {
      if (cut.extent == 0) continue;  // then there are no flops
      // Whole flops are a multiple of every factor: nothing is lost.
      const int64_t local = LocalSizeOf(cut, mesh, coordinate);
      part.forward = part.forward / cut.extent * local;
      part.backward = part.backward / cut.extent * local;
    }
    result.forward += part.forward;
    result.backward += part.backward;
  }
  return result;
}

}  // namespace shardplane
