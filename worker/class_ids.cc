#include "worker/class_ids.h"

#include <algorithm>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "worker/data_faults.h"

namespace shardplane {
namespace {

struct Allowed {
  const char* what;
  int64_t count;
  std::optional<int64_t> ignored;

  bool operator()(int64_t id) const {
    return (id >= 0 && id < count) || id == ignored;
  }
  std::string Message(int64_t bad) const {
    return absl::StrCat(
        what, " ", bad, " is out of bounds: expected an id in [0, ", count, ")",
        ignored.has_value() ? absl::StrCat(" or the ignored ", *ignored) : "",
        "; got: ", bad);
  }
};

at::Tensor OnHost(const at::Tensor& ids) {
  return ids.to(at::kCPU, at::kLong).contiguous();
}

// The first id that is not allowed; nullptr if all are.
const int64_t* FindBad(const at::Tensor& host, const Allowed& allowed) {
  const int64_t* const begin = host.const_data_ptr<int64_t>();
  const int64_t* const found =
      std::find_if_not(begin, begin + host.numel(), allowed);
  return found == begin + host.numel() ? nullptr : found;
}

// The device looks, and the host asks it once all has been computed.
at::Tensor CheckedLater(const at::Tensor& ids, const Allowed& allowed,
                        DataFaults& faults) {
  at::Tensor bad = ids.lt(0).logical_or_(ids.ge(allowed.count));
  if (allowed.ignored.has_value()) bad.logical_and_(ids.ne(*allowed.ignored));
  faults.Defer([ids, allowed, any = bad.any()]() -> std::string {
    if (!any.item<bool>()) return "";
    const at::Tensor host = OnHost(ids);
    const int64_t* const found = FindBad(host, allowed);
    return found == nullptr ? "" : allowed.Message(*found);
  });
  return ids.masked_fill(bad, 0);
}

}  // namespace

at::Tensor CheckedIds(const char* what, const at::Tensor& ids, int64_t count,
                      std::optional<int64_t> ignored) {
  TORCH_CHECK_TYPE(at::isIntegralType(ids.scalar_type(), /*includeBool=*/false),
                   what, ": expected integers; got: ", ids.scalar_type());
  const Allowed allowed{what, count, ignored};
  DataFaults* const faults = DataFaults::Current();
  if (faults != nullptr && faults->defers() && count > 0) {
    return CheckedLater(ids, allowed, *faults);
  }
  // One copy, or none: cheaper than asking the device several times.
  const at::Tensor host = OnHost(ids);
  const int64_t* const found = FindBad(host, allowed);
  if (found == nullptr) return ids;
  const std::string message = allowed.Message(*found);
  TORCH_CHECK_INDEX(faults != nullptr && count > 0, message);
  faults->Note(message);
  at::Tensor good = host.clone();
  std::replace_if(
      good.mutable_data_ptr<int64_t>(),
      good.mutable_data_ptr<int64_t>() + good.numel(),
      [&](int64_t id) { return !allowed(id); }, int64_t{0});
  return good.to(ids.device());
}

}  // namespace shardplane
