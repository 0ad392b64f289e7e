#include "worker/class_ids.h"

#include <algorithm>
#include <string>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "worker/data_faults.h"

namespace shardplane {

at::Tensor CheckedIds(const char* what, const at::Tensor& ids, int64_t count,
                      std::optional<int64_t> ignored) {
  TORCH_CHECK_TYPE(at::isIntegralType(ids.scalar_type(), /*includeBool=*/false),
                   what, ": expected integers; got: ", ids.scalar_type());
  // One copy, or none: cheaper than asking the device several times.
  const at::Tensor host = ids.to(at::kCPU, at::kLong).contiguous();
  const int64_t* const begin = host.const_data_ptr<int64_t>();
  const auto bad = [&](int64_t id) {
    return (id < 0 || id >= count) && id != ignored;
  };
  const int64_t* const found = std::find_if(begin, begin + host.numel(), bad);
  if (found == begin + host.numel()) return ids;
  const std::string message = absl::StrCat(
      what, " ", *found, " is out of bounds: expected an id in [0, ", count,
      ")",
      ignored.has_value() ? absl::StrCat(" or the ignored ", *ignored) : "",
      "; got: ", *found);
  DataFaults* const faults = DataFaults::Current();
  TORCH_CHECK_INDEX(faults != nullptr && count > 0, message);
  faults->Note(message);
  at::Tensor good = host.clone();
  std::replace_if(good.mutable_data_ptr<int64_t>(),
                  good.mutable_data_ptr<int64_t>() + good.numel(), bad,
                  int64_t{0});
  return good.to(ids.device());
}

}  // namespace shardplane
