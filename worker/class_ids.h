// Ids of rows and classes, as operators get them.
#ifndef SHARDPLANE_WORKER_CLASS_IDS_H_
#define SHARDPLANE_WORKER_CLASS_IDS_H_

#include <cstdint>
#include <optional>

#include "ATen/core/Tensor.h"

namespace shardplane {

// Throws c10::TypeError unless `ids` are integers, and c10::IndexError, naming
// the first one and the range, unless all lie in [0, count) or are `ignored`.
// Waits for the device. `what` is a noun: "Target".
void CheckIds(const char* what, const at::Tensor& ids, int64_t count,
              std::optional<int64_t> ignored);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_CLASS_IDS_H_
