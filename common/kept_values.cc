#include "common/kept_values.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "common/op_memory.h"
#include "common/op_values.h"

namespace shardplane {

std::vector<ValueId> KeptValues(const Segment& segment) {
  std::vector<ValueId> kept;
  absl::flat_hash_set<ValueId> asking(segment.differentiable_inputs.begin(),
                                      segment.differentiable_inputs.end());
  absl::flat_hash_set<ValueId> seen;
  const auto keep = [&](ValueId id) {
    if (seen.insert(id).second) kept.push_back(id);
  };
  for (const Op& op : segment.ops) {
    const std::vector<ValueId> operands = ValuesReadBy(op);
    std::vector<bool> asks;
    for (const ValueId id : operands) asks.push_back(asking.contains(id));
    if (op.target == "aten.detach.default" ||
        std::ranges::find(asks, true) == asks.end()) {
      continue;
    }
    asking.insert(op.results.begin(), op.results.end());
    const OpMemory& memory = MemoryOf(op.target);
    for (size_t i = 0; i < operands.size(); ++i) {
      if (KeepsOperand(memory, i, asks)) keep(operands[i]);
    }
    const bool unknown = memory.name.empty();
    for (size_t i = 0; i < op.results.size(); ++i) {
      if (unknown || (i == 0 && KeepsResult(memory))) keep(op.results[i]);
    }
  }
  return kept;
}

}  // namespace shardplane
