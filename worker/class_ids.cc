#include "worker/class_ids.h"

#include <string>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"

namespace shardplane {

void CheckIds(const char* what, const at::Tensor& ids, int64_t count,
              std::optional<int64_t> ignored) {
  TORCH_CHECK_TYPE(at::isIntegralType(ids.scalar_type(), /*includeBool=*/false),
                   what, ": expected integers; got: ", ids.scalar_type());
  // One copy, or none: cheaper than asking the device several times.
  const at::Tensor host = ids.to(at::kCPU, at::kLong).contiguous();
  const int64_t* const begin = host.const_data_ptr<int64_t>();
  for (const int64_t* id = begin; id != begin + host.numel(); ++id) {
    if ((*id >= 0 && *id < count) || *id == ignored) continue;
    const std::string or_ignored =
        ignored.has_value() ? absl::StrCat(" or the ignored ", *ignored) : "";
    TORCH_CHECK_INDEX(false, what, " ", *id,
                      " is out of bounds: expected an id in [0, ", count, ")",
                      or_ignored, "; got: ", *id);
  }
}

}  // namespace shardplane
