// Ids of rows and classes, as operators get them.
#ifndef SHARDPLANE_WORKER_CLASS_IDS_H_
#define SHARDPLANE_WORKER_CLASS_IDS_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "ATen/core/Tensor.h"

namespace shardplane {

// Those that are allowed.
struct IdRange {
  int64_t count = 0;               // from 0 on
  std::optional<int64_t> ignored;  // also
  bool from_end = false;           // -1 is the last, as -count is the first
};

// `ids` with 0 for those that are neither in [lowest, limit), which has 0, nor
// `ignored`; and bool[], whether there were any. shardplane.checked_ids, for
// CheckedIds on a device that computes on its own.
std::tuple<at::Tensor, at::Tensor> ReplaceBadIds(
    const at::Tensor& ids, int64_t lowest, int64_t limit,
    std::optional<int64_t> ignored);

// `ids`, all of which lie in `range`. Else c10::IndexError that names the first
// one and the range; where a DataFaults notes it, the ids with 0 for the bad
// ones. Waits for the device, unless a DataFaults defers: then that asks it.
// c10::TypeError unless they are integers. `what` is a noun: "Target".
at::Tensor CheckedIds(const char* what, const at::Tensor& ids,
                      const IdRange& range);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CLASS_IDS_H_
